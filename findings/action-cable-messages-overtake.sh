#!/usr/bin/env bash
# Rails' actioncable 6.1.7 with puma 5.6 (Debian 12, Ruby 3.1): messages that one thread broadcasts one after the other
# reach a client in another order, each once. With the adapter `async` ten threads hand them on, and with any adapter the
# workers send them, four as it comes (`worker_pool_size`). With one worker and the adapter `inline` they stay in order.
#
# Output seen (how many differs from run to run):
#   async, 4 workers: 2000 of 2000 came, 10 behind a later one
#   async, 1 workers: 2000 of 2000 came, 4 behind a later one
#   inline, 4 workers: 2000 of 2000 came, 3 behind a later one
#   inline, 1 workers: 40000 of 40000 came, 0 behind a later one
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
if ! [ -x /usr/bin/puma ] || ! compgen -G '/usr/share/rubygems-integration/all/specifications/actioncable-*' >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends puma ruby-actioncable >/dev/null
fi
cat >"$folder/run.rb" <<'RB'
require 'logger'
require 'json'
require 'socket'
require 'action_cable'
require 'puma'
require 'websocket/driver'

$stdout.sync = true
adapter, workers = ARGV
version = ActionCable.version.to_s
abort "CHANGED: this is actioncable #{version}, and not 6.1.7" unless version.start_with?('6.1.7')

class Connection < ActionCable::Connection::Base; end

class FeedChannel < ActionCable::Channel::Base
  def subscribed
    stream_from 'feed'
  end
end

ActionCable.server.config.tap do |config|
  config.cable = { 'adapter' => adapter }
  config.worker_pool_size = Integer(workers)
  config.connection_class = -> { Connection }
  config.disable_request_forgery_protection = true
  config.logger = Logger.new(nil)
end
server = Puma::Server.new(ActionCable.server, Puma::Events.new(StringIO.new, StringIO.new))
port = server.add_tcp_listener('127.0.0.1', 0).addr[1]
server.run

# A client of one connection, which subscribes and writes down what comes in the order in which it comes.
Link = Struct.new(:url, :socket) do
  def write(bytes)
    socket.write(bytes)
  end
end
socket = TCPSocket.new('127.0.0.1', port)
link = Link.new("ws://127.0.0.1:#{port}/", socket)
driver = WebSocket::Driver.client(link, protocols: ['actioncable-v1-json'])
numbers = []
confirmed = false
driver.on(:message) do |event|
  message = JSON.parse(event.data)
  case message['type']
  when 'welcome'
    driver.text({ command: 'subscribe', identifier: { channel: 'FeedChannel' }.to_json }.to_json)
  when 'confirm_subscription' then confirmed = true
  when nil then numbers << message['message']
  end
end
driver.start
Thread.new { loop { driver.parse(socket.readpartial(65_536)) } }

def wait_until
  deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 60
  until yield
    abort 'waited for too long' if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline
    sleep 0.01
  end
end

wait_until { confirmed }
# This thread alone, one after the other, until some came in another order or enough did not.
sent = late = 0
while late.zero? && sent < 40_000
  2_000.times { |number| ActionCable.server.broadcast('feed', sent + number) }
  sent += 2_000
  wait_until { numbers.size >= sent }
  late = numbers.each_cons(2).count { |before, after| after < before }
end
as_before = numbers.sort == [*0...sent] && late.zero? == (adapter == 'inline' && workers == '1')
said = as_before ? '' : '; CHANGED: this is not what was seen before'
puts "#{adapter}, #{workers} workers: #{numbers.size} of #{sent} came, #{late} behind a later one#{said}"
exit!(as_before ? 0 : 1)
RB
failed=0
for kind in 'async 4' 'async 1' 'inline 4' 'inline 1'; do
  # shellcheck disable=SC2086
  timeout 300 ruby "$folder/run.rb" $kind || failed=1
done
exit "$failed"
