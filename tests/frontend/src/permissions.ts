// The permissions of each role. They only decide which controls are shown: the API authorizes every request.

const ROLES = {
  Create: ["Admin", "Editor"],
  Read: ["Admin", "Editor", "Reader"],
  Edit: ["Admin", "Editor"],
  Delete: ["Admin"],
  "View All in Org": ["Admin"],
} as const;

export type Permission = keyof typeof ROLES;
export type Permissions = Record<Permission, boolean>;

export function permissionsOf(roles: readonly string[]): Permissions {
  const granted = (permission: Permission) => ROLES[permission].some((role) => roles.includes(role));
  return {
    Create: granted("Create"),
    Read: granted("Read"),
    Edit: granted("Edit"),
    Delete: granted("Delete"),
    "View All in Org": granted("View All in Org"),
  };
}
