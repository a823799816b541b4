"""Makes the TLS context of a connection from the option ``ssl=``; it verifies the broker.

kombu is not used for that: its ``ssl=True`` verifies no host name, its ``ssl={}`` means plain
text, and it ignores an SSLContext.
"""

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

# The keys of a dict.  Except for "password", ssl.wrap_socket and kombu use the same names.
_OPTIONS = frozenset(
    {
        "ca_certs",
        "cert_reqs",
        "certfile",
        "check_hostname",
        "ciphers",
        "keyfile",
        "password",
        "server_hostname",
    }
)
_HOW_TO_SAY_IT = "True, False, an ssl.SSLContext, or a dict of " + ", ".join(sorted(_OPTIONS))


class TLS(NamedTuple):
    """The TLS settings of a connection."""

    context: ssl.SSLContext
    #: The name that the certificate must contain; None for the host of the connection.
    server_hostname: str | None = None


#: What ``ssl=`` may be.
TLSOption = bool | ssl.SSLContext | Mapping[str, Any] | None


def check_tls_option(option: object) -> None:
    """Raise TypeError or ValueError unless *option* is a valid value of ``ssl=``."""
    if option is None or isinstance(option, (bool, ssl.SSLContext)):
        return
    if not isinstance(option, Mapping):
        # Only the type: the value may hold a password.
        raise TypeError(f"ssl must be {_HOW_TO_SAY_IT}, not {type(option).__name__}")
    unknown = [repr(each) for each in option if each not in _OPTIONS]
    if unknown:
        raise ValueError(f"ssl must be {_HOW_TO_SAY_IT}; {', '.join(unknown)} is not known")


def make_tls(option: Any) -> TLS | None:
    """Return the TLS settings for the value of ``ssl=``; None for no TLS.

    The certificate's chain and host name are verified, unless *option* explicitly says
    otherwise: a dict by ``cert_reqs`` or ``check_hostname``, a context by its own settings.

    :raises ValueError: a file can't be loaded, or the options contradict each other.
    """
    check_tls_option(option)
    if option is None or option is False:
        return None
    if isinstance(option, ssl.SSLContext):
        return TLS(option)
    options = {} if option is True else dict(option)
    server_hostname = options.pop("server_hostname", None)
    return TLS(_make_context(**options), server_hostname)


def _make_context(
    *,
    ca_certs: str | os.PathLike[str] | None = None,
    certfile: str | os.PathLike[str] | None = None,
    keyfile: str | os.PathLike[str] | None = None,
    password: str | None = None,
    ciphers: str | None = None,
    cert_reqs: ssl.VerifyMode = ssl.CERT_REQUIRED,
    check_hostname: bool = True,
) -> ssl.SSLContext:
    if not isinstance(check_hostname, bool):
        raise TypeError(f"ssl: check_hostname must be True or False, not {check_hostname!r}")
    if not isinstance(cert_reqs, ssl.VerifyMode):
        raise TypeError(f"ssl: cert_reqs must be one of ssl.CERT_…, not {cert_reqs!r}")
    if keyfile is not None and certfile is None:
        raise ValueError("ssl: a keyfile needs the certfile that belongs to it")
    with _naming("ca_certs", ca_certs):
        context = ssl.create_default_context(cafile=ca_certs)
    # In this order: a context refuses CERT_NONE while it checks the host name.
    context.check_hostname = check_hostname and cert_reqs != ssl.CERT_NONE
    context.verify_mode = cert_reqs
    if ciphers is not None:
        with _naming("ciphers", ciphers):
            context.set_ciphers(ciphers)
    if certfile is not None:
        with _naming("certfile and keyfile", (str(certfile), str(keyfile or certfile))):
            context.load_cert_chain(certfile, keyfile, password or _no_password)
    return context


@contextmanager
def _naming(option: str, value: object) -> Iterator[None]:
    """Name *option* in an error of OpenSSL, which does not name the file."""
    try:
        yield
    except OSError as error:  # SSLError is one
        raise ValueError(f"ssl: {option}={str(value)!r} can't be used: {error}") from error


def _no_password() -> NoReturn:
    # Otherwise OpenSSL would ask for the password at the terminal.
    raise ValueError("ssl: the keyfile is encrypted; give its password as 'password'")
