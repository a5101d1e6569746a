"""The endpoints that `az login` and `az rest` call to get tokens, and the consent of an administrator.

Tokens are not signed. Only the mock accepts them.
"""

import base64
import json
import time
import urllib.parse
import uuid

from . import LOGIN
from .directory import ADMIN, GRAPH_APP, INITIAL_DOMAIN, TENANT, USER_READ
from .errors import now

AZURE_CLI = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
CUSTOMER = "99999999-8888-7777-6666-555555555555"
MANAGEMENT_RESOURCE = "management.core.windows.net"
LIFETIME = 24 * 60 * 60


def handle(directory, path, query, form):
    """Answers a request to login.microsoftonline.com with a status and a JSON body, or with 302 and an address."""
    tenant, _, rest = path.strip("/").partition("/")
    match rest:
        case "discovery/instance":
            return 200, instance_metadata()
        case "v2.0/.well-known/openid-configuration":
            return 200, openid_configuration(tenant)
        case "oauth2/v2.0/devicecode":
            return 200, {
                "user_code": "MOCKCODE",
                "device_code": "mock-device-code",
                "verification_uri": "https://microsoft.com/devicelogin",
                "expires_in": 900,
                "interval": 1,
                "message": "The mock accepts the device code without a sign-in.",
            }
        case "oauth2/v2.0/token":
            if directory.settings["token_error"] == "expired":
                return error("invalid_grant", 700082, "The refresh token has expired due to inactivity.")
            # A request with a device code has no scope. Its token is for Azure's management API.
            return 200, tokens(form.get("scope", f"https://{MANAGEMENT_RESOURCE}//.default"))
        case "adminconsent":
            return consent(directory, query)
    return error("invalid_request", 900561, f"The mock does not implement {path}.", status=404)


def instance_metadata():
    entry = {"preferred_network": LOGIN, "preferred_cache": LOGIN, "aliases": [LOGIN]}
    configuration = f"https://{LOGIN}/{TENANT}/v2.0/.well-known/openid-configuration"
    return {"tenant_discovery_endpoint": configuration, "api-version": "1.1", "metadata": [entry]}


def openid_configuration(tenant):
    base = f"https://{LOGIN}/{tenant}"
    return {
        "issuer": f"https://{LOGIN}/{tenant if tenant == TENANT else '{tenantid}'}/v2.0",
        "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
        "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
        "token_endpoint": f"{base}/oauth2/v2.0/token",
        "jwks_uri": f"{base}/discovery/v2.0/keys",
    }


def tokens(scope):
    """Tokens of the administrator. The scope contains the resource, such as https://graph.microsoft.com//.default."""
    resource = next(word for word in scope.split() if word.startswith("https:"))
    seconds = int(time.time())
    claims = {
        "iss": f"https://{LOGIN}/{TENANT}/v2.0",
        "aud": AZURE_CLI,
        "tid": TENANT,
        "oid": ADMIN,
        "sub": ADMIN,
        "preferred_username": f"admin@{INITIAL_DOMAIN}",
        "iat": seconds,
        "nbf": seconds,
        "exp": seconds + LIFETIME,
        "ver": "2.0",
    }
    return {
        "token_type": "Bearer",
        "scope": scope,
        "expires_in": LIFETIME,
        "access_token": access_token(urllib.parse.urlsplit(resource).hostname),
        "refresh_token": "mock-refresh-token",
        "client_info": encode({"uid": ADMIN, "utid": TENANT}),
        "id_token": f"{encode({'typ': 'JWT', 'alg': 'none'})}.{encode(claims)}.mock",
    }


def access_token(host):
    return f"mock-access-token-for-{host}"


def encode(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def error(code, number, text, status=400):
    identifier = str(uuid.uuid4())
    return status, {
        "error": code,
        "error_description": f"AADSTS{number}: {text} Trace ID: {identifier} Timestamp: {now()}",
        "error_codes": [number],
        "correlation_id": identifier,
    }


def consent(directory, query):
    """The administrator of another tenant opens the address for admin consent and accepts."""
    application = directory.by_client_id("application", query.get("client_id", ""))
    if not application or application.data["signInAudience"] != "AzureADMultipleOrgs":
        return error("unauthorized_client", 700016, "The application was not found in the directory.")
    application = application.data
    redirect_uris = application["spa"]["redirectUris"]
    # Without a redirect URI in the request, Entra uses one of the registration.
    redirect_uri = query.get("redirect_uri") or redirect_uris[0]
    if redirect_uri not in redirect_uris:
        return error("invalid_request", 50011, f"The redirect URI '{redirect_uri}' is not registered.")
    consented = {application["appId"]: {"displayName": application["displayName"]}}
    for required in application["requiredResourceAccess"]:
        client_id = required["resourceAppId"]
        if client_id == GRAPH_APP:
            scopes = {USER_READ["id"]}
        else:
            api = directory.by_client_id("application", client_id)
            # One consent covers an API that names the client in `knownClientApplications`.
            if not api or application["appId"] not in api.data["api"]["knownClientApplications"]:
                return error("invalid_client", 650052, f"The app needs access to a service ('{client_id}').")
            scopes = {scope["id"] for scope in api.data["api"]["oauth2PermissionScopes"] if scope["isEnabled"]}
            consented[client_id] = {"displayName": api.data["displayName"]}
        if not {access["id"] for access in required["resourceAccess"]} <= scopes:
            return error("invalid_client", 650053, f"A requested permission does not exist on '{client_id}'.")
    directory.customers.setdefault(CUSTOMER, {}).update(consented)
    separator = "&" if "?" in redirect_uri else "?"
    parameters = urllib.parse.urlencode({"admin_consent": "True", "tenant": CUSTOMER})
    return 302, redirect_uri + separator + parameters
