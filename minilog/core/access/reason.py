"""Why somebody was refused, in words that metrics, the audit log and answers share. They are few,
so that a flood of refusals makes no more series."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    NO_CREDENTIAL = "no_credential"
    UNKNOWN_CREDENTIAL = "unknown_credential"
    MALFORMED_CREDENTIAL = "malformed_credential"
    EXPIRED = "expired"
    FAILED_LOGINS = "failed_logins"
    """The address has shown too many credentials that are nobody's."""
    WITHOUT_TLS = "without_tls"
    NEEDS_CERTIFICATE = "needs_certificate"
    TOKEN_IN_URL = "token_in_url"
    FOREIGN_NAME = "foreign_name"
    FOREIGN_ORIGIN = "foreign_origin"
    NOT_ALLOWED = "not_allowed"
    QUOTA = "quota"


OF_LOGINS = frozenset((Reason.UNKNOWN_CREDENTIAL, Reason.MALFORMED_CREDENTIAL, Reason.EXPIRED))
"""Something was shown, and it is nobody's."""
