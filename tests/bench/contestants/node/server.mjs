// The Node contestant of tests/bench/run: Fastify with jose.
// Settings: PORT, AUTHORITY, CLIENT_ID, ALLOWED_TENANT_IDS.
//
// jose caches each tenant's keys and verifies the token of every request. Responses have schemas, so that Fastify
// uses compiled serializers. Tasks are stored in maps by id.

import Fastify from 'fastify'
import { createRemoteJWKSet, decodeJwt, jwtVerify } from 'jose'

const { PORT, AUTHORITY, CLIENT_ID, ALLOWED_TENANT_IDS } = process.env

const tenants = new Map(
  ALLOWED_TENANT_IDS.split(',').map((id) => [
    id,
    {
      keys: createRemoteJWKSet(new URL(`${AUTHORITY}/${id}/discovery/v2.0/keys`)),
      expected: { issuer: `https://sts.windows.net/${id}/`, audience: `api://${CLIENT_ID}`, algorithms: ['RS256'] },
      lastTaskId: 0,
      users: new Map(), // oid → id → task
    },
  ]),
)

const taskSchema = {
  type: 'object',
  properties: {
    id: { type: 'integer' },
    title: { type: 'string' },
    completed: { type: 'boolean' },
    owner_name: { type: 'string' },
    tenant_id: { type: 'string' },
    owner_id: { type: 'string' },
  },
}
const returns = (schema) => ({ response: { 200: schema } })
const statusSchema = { type: 'object', properties: { status: { type: 'string' } } }
const newTaskSchema = { type: 'object', required: ['title'], properties: { title: { type: 'string' } } }
const updateSchema = {
  type: 'object',
  properties: { title: { type: 'string' }, completed: { type: 'boolean' } },
}
const idSchema = { type: 'object', properties: { id: { type: 'integer' } } }

const app = Fastify({ logger: false })
app.decorateRequest('claims', null)

/** Returns a hook that authenticates the caller and requires one of the roles. */
function requireRole(...roles) {
  return async (request, reply) => {
    const [scheme, token] = (request.headers.authorization ?? '').split(' ')
    if (scheme.toLowerCase() !== 'bearer' || !token) {
      return reply.code(401).send({ detail: 'Not authenticated' })
    }
    try {
      const tenant = tenants.get(decodeJwt(token).tid)
      if (!tenant) {
        return reply.code(403).send({ detail: 'This tenant is not allowed' })
      }
      request.claims = (await jwtVerify(token, tenant.keys, tenant.expected)).payload
    } catch {
      return reply.code(401).send({ detail: 'The token is not valid' })
    }
    if (!request.claims.roles?.some((role) => roles.includes(role))) {
      return reply.code(403).send({ detail: `One of these roles is required: ${roles.join(', ')}` })
    }
  }
}

const isAdmin = ({ roles }) => roles.includes('Admin')

/** Returns the task maps that the caller may access: those of all users for an Admin, else only the caller's. */
function accessibleTasks(claims) {
  const { users } = tenants.get(claims.tid)
  return isAdmin(claims) ? [...users.values()] : [users.get(claims.oid) ?? new Map()]
}

app.get('/health', { schema: returns(statusSchema) }, async () => ({ status: 'healthy' }))

app.get(
  '/api/tasks',
  { onRequest: requireRole('Admin', 'Editor', 'Reader'), schema: returns({ type: 'array', items: taskSchema }) },
  async ({ claims }) => {
    const { users } = tenants.get(claims.tid)
    if (!isAdmin(claims)) {
      return [...(users.get(claims.oid)?.values() ?? [])]
    }
    return [...users].flatMap(([owner_id, tasks]) => [...tasks.values()].map((task) => ({ ...task, owner_id })))
  },
)

app.post(
  '/api/tasks',
  { onRequest: requireRole('Admin', 'Editor'), schema: { body: newTaskSchema, ...returns(taskSchema) } },
  async ({ claims, body }) => {
    const tenant = tenants.get(claims.tid)
    tenant.lastTaskId += 1
    const task = {
      id: tenant.lastTaskId,
      title: body.title,
      completed: false,
      owner_name: claims.name,
      tenant_id: claims.tid,
    }
    if (!tenant.users.has(claims.oid)) {
      tenant.users.set(claims.oid, new Map())
    }
    tenant.users.get(claims.oid).set(task.id, task)
    return task
  },
)

app.patch(
  '/api/tasks/:id',
  {
    onRequest: requireRole('Admin', 'Editor'),
    schema: { params: idSchema, body: updateSchema, ...returns(taskSchema) },
  },
  async ({ claims, params, body }, reply) => {
    const task = accessibleTasks(claims)
      .map((tasks) => tasks.get(params.id))
      .find(Boolean)
    if (!task) {
      return reply.code(404).send({ detail: 'Task not found' })
    }
    task.title = body.title ?? task.title
    task.completed = body.completed ?? task.completed
    return task
  },
)

app.delete(
  '/api/tasks/:id',
  { onRequest: requireRole('Admin'), schema: { params: idSchema, ...returns(statusSchema) } },
  async ({ claims, params }) => {
    accessibleTasks(claims).forEach((tasks) => tasks.delete(params.id))
    return { status: 'deleted' }
  },
)

await app.listen({ host: '127.0.0.1', port: Number(PORT) })
