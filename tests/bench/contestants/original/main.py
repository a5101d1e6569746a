"""The FastAPI port: the application of the FastAPI tutorial, as a contestant of tests/bench/run.

Each costly step follows the tutorial. Every request decodes the token, compares its tenant with the allow-list, takes
the signing keys from a dict and verifies the signature with python-jose. Tasks are dicts in lists.
Settings: AUTHORITY, CLIENT_ID, ALLOWED_TENANT_IDS.
"""

import itertools
import os
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from jose import JWTError, jwt
from pydantic import BaseModel

AUTHORITY = os.environ["AUTHORITY"]
AUDIENCE = f"api://{os.environ['CLIENT_ID']}"
ALLOWED_TENANTS = set(os.environ["ALLOWED_TENANT_IDS"].split(","))

app = FastAPI()
bearer = HTTPBearer()

keys_by_tenant: dict[str, list[dict]] = {}

# Tenant → user → tasks. Each worker process has a separate store and id counter.
tasks_by_tenant: dict[str, dict[str, list[dict]]] = {}
ids = itertools.count(1)


class NewTask(BaseModel):
    title: str


class TaskUpdate(BaseModel):
    title: str | None = None
    completed: bool | None = None


async def verified_claims(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> dict:
    """Returns the claims of a valid token of an allowed tenant for this API."""
    token = credentials.credentials
    try:
        key_id = jwt.get_unverified_header(token).get("kid", "")
        tenant = jwt.get_unverified_claims(token).get("tid", "")
    except JWTError as error:
        raise HTTPException(401, "The token is malformed") from error
    if tenant not in ALLOWED_TENANTS:
        raise HTTPException(403, f"Tenant {tenant} is not allowed")
    key = await signing_key(tenant, key_id)
    try:
        issuer = f"https://sts.windows.net/{tenant}/"
        return jwt.decode(token, key, algorithms=["RS256"], audience=AUDIENCE, issuer=issuer)
    except JWTError as error:
        raise HTTPException(401, "The token is not valid") from error


async def signing_key(tenant: str, key_id: str) -> dict:
    """Returns the tenant's signing key with this id. An unknown id causes another fetch."""
    for _ in range(2):
        if tenant not in keys_by_tenant:
            async with httpx.AsyncClient() as client:
                response = await client.get(f"{AUTHORITY}/{tenant}/discovery/v2.0/keys")
                response.raise_for_status()
                keys_by_tenant[tenant] = response.json()["keys"]
        for key in keys_by_tenant[tenant]:
            if key["kid"] == key_id:
                return key
        del keys_by_tenant[tenant]
    raise HTTPException(401, "The signing key is unknown")


def role_guard(*accepted: str):
    """Returns a dependency that requires one of the roles."""

    async def check(claims: Annotated[dict, Depends(verified_claims)]) -> dict:
        if not set(accepted) & set(claims.get("roles", [])):
            raise HTTPException(403, f"One of these roles is required: {', '.join(accepted)}")
        return claims

    return check


AnyRole = Annotated[dict, Depends(role_guard("Admin", "Editor", "Reader"))]
EditorOrAdmin = Annotated[dict, Depends(role_guard("Admin", "Editor"))]
AdminOnly = Annotated[dict, Depends(role_guard("Admin"))]


def tenant_tasks(claims: dict) -> dict[str, list[dict]]:
    """Returns the tasks of the caller's tenant by user."""
    return tasks_by_tenant.setdefault(claims["tid"], {})


@app.get("/health")
async def health():
    return {"status": "healthy"}


@app.get("/api/tasks")
async def list_tasks(claims: AnyRole):
    users = tenant_tasks(claims)
    if "Admin" in claims["roles"]:
        return [{**task, "owner_id": user} for user, tasks in users.items() for task in tasks]
    return users.get(claims["oid"], [])


@app.post("/api/tasks")
async def create_task(new: NewTask, claims: EditorOrAdmin):
    task = {
        "id": next(ids),
        "title": new.title,
        "completed": False,
        "owner_name": claims.get("name", ""),
        "tenant_id": claims["tid"],
    }
    tenant_tasks(claims).setdefault(claims["oid"], []).append(task)
    return task


@app.patch("/api/tasks/{task_id}")
async def update_task(task_id: int, update: TaskUpdate, claims: EditorOrAdmin):
    users = tenant_tasks(claims)
    reach = users.values() if "Admin" in claims["roles"] else [users.get(claims["oid"], [])]
    for tasks in reach:
        for task in tasks:
            if task["id"] == task_id:
                task.update(update.model_dump(exclude_none=True))
                return task
    return {"error": "Task not found"}


@app.delete("/api/tasks/{task_id}")
async def delete_task(task_id: int, claims: AdminOnly):
    for tasks in tenant_tasks(claims).values():
        tasks[:] = [task for task in tasks if task["id"] != task_id]
    return {"status": "deleted"}
