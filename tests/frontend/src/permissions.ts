// What each role may do. Only for what the page offers: the API decides, and checks every request.

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
  const may = (permission: Permission) => ROLES[permission].some((role) => roles.includes(role));
  return {
    Create: may("Create"),
    Read: may("Read"),
    Edit: may("Edit"),
    Delete: may("Delete"),
    "View All in Org": may("View All in Org"),
  };
}
