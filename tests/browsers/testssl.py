"""What testssl.sh finds in the server's TLS: versions, suites, resumption, and the attacks that have names.

Starts the binary (FANTAIL_BIN, else target/release or target/debug) with and without `tls.lean`. Anything that testssl.sh calls
worse than information, or does not come to tell, is a failure, but for what is listed here. Takes minutes: `.ci/nightly` runs it.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("FANTAIL_TEST_TLS", "1")

import ws_client  # noqa: E402 (it reads the variable)
from ws_client import CERTIFICATES  # noqa: E402

# What is no fault of the server's, and why.
EXPECTED = {
    "engine_problem": "GOST is not in this machine's OpenSSL",
    "cipher_order": "the client's order counts, because every suite that is offered is a good one",
    "cert_validityPeriod": "the certificate of the tests is good for a century",
    "cert_revocation": "and nobody revokes it",
    "DNS_CAArecord": "localhost has no such record",
    "HSTS": "there is a plain port beside it, as a rule",
    "ipv4_in_header": "who comes from this machine is told where the admin port is",
    "sessionresumption_ticket": "its own client can't tell with TLS 1.3; openssl_client.py resumes in both versions",
}
# Without these, it has looked at nothing.
NEEDED = {"TLS1_2", "TLS1_3", "heartbleed", "CCS", "ROBOT", "secure_client_renego", "CRIME_TLS", "cert_chain_of_trust"}


def findings(server, file):
    port = server.listen.rpartition(":")[2]
    command = ["testssl", "--quiet", "--warnings", "batch", "--color", "0", "--add-ca", str(CERTIFICATES / "ca.pem"),
               "--jsonfile", str(file), f"localhost:{port}"]
    # Its exit code counts what it finds.
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=900)
    return json.loads(file.read_text())


def main():
    failed = False
    for lean in ("true", "false"):
        server = ws_client.Server(FANTAIL_TLS_LEAN=lean)
        try:
            with tempfile.TemporaryDirectory() as folder:
                found = findings(server, pathlib.Path(folder, "found.json"))
        finally:
            server.kill()
        good = {one["id"] for one in found if one["severity"] == "OK"}
        bad = [one for one in found if one["severity"] not in ("OK", "INFO") and one["id"] not in EXPECTED]
        for one in bad:
            print(f"{one['severity']} {one['id']}: {one['finding']}")
        if missing := NEEDED - good:
            print(f"not found to be good: {', '.join(sorted(missing))}")
        failed = failed or bool(bad or missing)
        print(f"testssl, tls.lean = {lean}: {len(good)} good, {len(bad)} bad of {len(found)}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
