"""Keys of a secured dev cluster: an authority of its own, a certificate and a token for each
process, and tokens for people.

    <data>/keys/security.toml            who is known, and what each may do
    <data>/keys/ca.pem, ca.key           the authority that has signed all certificates
    <data>/keys/<process>.{pem,key,token}
    <data>/keys/admin.token, metrics.token

Everything has mode 0600, in a folder of mode 0700. What is there is kept, so a second start changes
no token. Certificates that end soon are made anew. ``openssl`` makes them, for Python's library
makes none.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from minilog.cli.access import CA_FILE, TOKEN_FILE
from minilog.cli.output import CliError
from minilog.cli.token.token import new_token, write_principal, write_private
from minilog.security_file import read_security

if TYPE_CHECKING:
    from minilog_client.credential import Credential

ADMIN: Final = "admin"
DAYS: Final = 365
AUTHORITY_DAYS: Final = 3650
RENEW_S: Final = 30 * 24 * 3600
_AUTHORITY: Final = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n"
_PROCESS: Final = (
    "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
    "subjectAltName=IP:127.0.0.1,DNS:localhost,URI:minilog://{name}\n"
    "authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
)


class Keyring:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def security_file(self) -> Path:
        return self.folder / "security.toml"

    def token_file(self, name: str) -> Path:
        return self.folder / f"{name}.token"

    def make(self, processes: Mapping[str, str]) -> None:
        """What is missing. ``processes``: the role of each by its name. Raises CliError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        if not self._lasts(self.ca_file):
            self._authority()
        for name, role in processes.items():
            self.make_principal(name, roles=[role])
            if not self._lasts(self.folder / f"{name}.pem"):
                self._certificate(name)
        for role in (ADMIN, "metrics"):
            self.make_principal(role, roles=[role])

    def make_principal(self, name: str, allow: Sequence[str] = (), roles: Sequence[str] = ()) -> Path:
        """The file of its token, made unless it is there. Raises CliError."""
        path = self.token_file(name)
        if not path.exists():
            known = self.security_file.exists() and name in read_security(self.security_file).policy.principals
            token = new_token()
            write_principal(self.security_file, name, token, () if known else allow, () if known else roles)
            write_private(path, token + "\n")
        return path

    def settings(self, name: str) -> dict[str, str]:
        """Of the process."""
        return {
            "security_file": str(self.security_file),
            "token_file": str(self.token_file(name)),
            "tls_cert_file": str(self.folder / f"{name}.pem"),
            "tls_key_file": str(self.folder / f"{name}.key"),
            "tls_ca_file": str(self.ca_file),
        }

    @cached_property
    def credential(self) -> Credential:
        """Of the administrator. Raises InvalidRequest."""
        return self.credential_of(ADMIN)

    def credential_of(self, name: str) -> Credential:
        """Raises InvalidRequest."""
        from minilog_client.credential import Credential, Files  # here, because it costs every start

        return Credential(Files(str(self.token_file(name)), str(self.ca_file)))

    @property
    def environment(self) -> dict[str, str]:
        """What makes every command the administrator's."""
        return {TOKEN_FILE: str(self.token_file(ADMIN)), CA_FILE: str(self.ca_file)}

    # --- certificates -----------------------------------------------------------------------------

    def _lasts(self, certificate: Path) -> bool:
        if not certificate.exists():
            return False
        return self._run(f"x509 -checkend {RENEW_S} -noout -in", str(certificate)).returncode == 0

    def _authority(self) -> None:
        """A new one signs everything anew."""
        for old in self.folder.glob("*.pem"):
            old.unlink()
        self._key_and_request("ca", "minilog dev authority")
        self._sign("ca", _AUTHORITY, ["-signkey", "ca.key", "-days", str(AUTHORITY_DAYS)])

    def _certificate(self, name: str) -> None:
        self._key_and_request(name, name)
        authority = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", str(DAYS)]
        self._sign(name, _PROCESS.format(name=name), authority)

    def _key_and_request(self, name: str, subject: str) -> None:
        self._must("ecparam -name prime256v1 -genkey -noout -out", f"{name}.key")
        self._must("req -new -sha256 -key", f"{name}.key", "-subj", f"/CN={subject}", "-out", f"{name}.csr")

    def _sign(self, name: str, extensions: str, signer: Sequence[str]) -> None:
        request, described = self.folder / f"{name}.csr", self.folder / f"{name}.extensions"
        described.write_text(extensions)
        self._must("x509 -req -sha256 -extfile", described.name, "-in", request.name, *signer, "-out", f"{name}.pem")
        request.unlink()
        described.unlink()

    def _must(self, words: str, *more: str) -> None:
        done = self._run(words, *more)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise CliError(f"openssl {words.split()[0]} failed: {last}")

    def _run(self, words: str, *more: str) -> subprocess.CompletedProcess[str]:
        openssl = shutil.which("openssl")
        if openssl is None:
            raise CliError(
                "--secure makes certificates with openssl, which is not installed here "
                "(Debian and Ubuntu: apt-get install openssl)"
            )
        return subprocess.run(
            [openssl, *words.split(), *more],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            umask=0o077,
            check=False,
        )


def export_line(environment: Mapping[str, str]) -> str:
    """For a shell."""
    return "export " + " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
