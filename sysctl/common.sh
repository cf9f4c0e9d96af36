# Sourced by apply, check and revert: where things are, and how fantail.conf is read. Plain POSIX shell.
#
# Tests and images set these; by default they mean the running machine.
#   PROC_SYS  the kernel's settings             /proc/sys
#   ETC       where they are kept for the next boot  /etc
#   STATE     what apply found before it changed anything  /var/lib/fantail/sysctl
#   MOUNTS    what is mounted, as the kernel lists it      /proc/self/mounts
PROC_SYS=${PROC_SYS:-/proc/sys}
ETC=${ETC:-/etc}
STATE=${STATE:-/var/lib/fantail/sysctl}
MOUNTS=${MOUNTS:-/proc/self/mounts}

SYSCTL_FILE=$ETC/sysctl.d/60-fantail.conf
LIMITS_FILE=$ETC/security/limits.d/60-fantail.conf

fail() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
  exit "${2:-1}"
}

# Every setting of fantail.conf that counts, as "KEY VALUE...": what is active, and the keys in $ALSO.
settings() {
  while IFS= read -r line; do
    case $line in
      '' | '#:'* | '# '* | '#') continue ;;
      '#'*)
        line=${line#?}
        key=${line%%=*}
        key=${key% }
        case " $ALSO " in *" $key "*) ;; *) continue ;; esac
        ;;
    esac
    line=${line#-}
    key=${line%%=*}
    printf '%s %s\n' "${key% }" "${line#*= }"
  done <"$HERE/fantail.conf"
}

# Every key of fantail.conf, applied by default or not.
known() {
  sed -n 's/^[#-]*\([a-z0-9_]*\.[a-z0-9_.-]*\) = .*/\1/p' "$HERE/fantail.conf"
}

# The file of a key: dots are slashes.
file_of() {
  printf '%s/%s' "$PROC_SYS" "$(printf '%s' "$1" | tr . /)"
}

# What fantail.conf says about whose setting it is: machine or namespace.
scope_of() {
  scope=
  while IFS= read -r line; do
    case $line in
      '#: scope'*) scope=${line##* } ;;
      "$1 = "* | "-$1 = "* | "#$1 = "*) printf '%s' "$scope"; return ;;
    esac
  done <"$HERE/fantail.conf"
}

# Whether not even root can set it from here, as in most containers: it is mounted read-only, or closed to the root of
# this namespace.
sealed() {
  file=$(file_of "$1")
  [ "$(id -u)" -ne 0 ] || [ -w "$file" ] || return 0
  [ -r "$MOUNTS" ] || return 1
  sealed=1
  # The last mount above the file is the one that counts; a longer one behind a shorter one is listed later.
  while read -r _ point _ options _; do
    case $file in
      "$point"/* | "$point")
        case ,$options, in *,ro,*) sealed=0 ;; *) sealed=1 ;; esac
        ;;
    esac
  done <"$MOUNTS"
  return "$sealed"
}

# Who can set it then.
elsewhere() {
  if [ "$(scope_of "$1")" = namespace ]; then
    printf 'on the host or by the engine: --sysctl %s="%s"' "$1" "$2"
  else
    printf 'on the host as root: sysctl -w %s="%s"' "$1" "$2"
  fi
}

# The file's numbers with single spaces.
present() {
  # Unquoted, so that tabs and newlines become single spaces.
  # shellcheck disable=SC2046
  echo $(cat "$1")
}

# Whether the first number is larger. As text, because some are as large as 64 bits allow and more.
larger() {
  [ "${#1}" -gt "${#2}" ] || { [ "${#1}" -eq "${#2}" ] && [ "$1" != "$2" ] && [ "$1" -gt "$2" ]; }
}

# What KEY becomes when it has PRESENT and shall have WANTED: never less than it has. A range of ports becomes
# wider at both ends; a switch becomes what is wanted.
raised() {
  key=$1
  have=$2
  want=$3
  [ "$key" != net.ipv4.tcp_tw_reuse ] || { echo "$want"; return; }
  out=
  place=0
  for number in $want; do
    place=$((place + 1))
    # The number of the present value at the same place.
    # shellcheck disable=SC2086
    old=$(nth "$place" $have)
    if [ "$key" = net.ipv4.ip_local_port_range ] && [ "$place" -eq 1 ]; then
      if larger "$number" "$old"; then number=$old; fi
    elif larger "$old" "$number"; then
      number=$old
    fi
    out="$out${out:+ }$number"
  done
  echo "$out"
}

nth() {
  shift "$1"
  echo "${1:-0}"
}

# Whether two files have the same bytes.
same() {
  [ -f "$1" ] && [ -f "$2" ] && cmp -s "$1" "$2"
}
