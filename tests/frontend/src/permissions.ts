// The permissions of each role. They only decide which controls are shown: the API authorizes every request.

export type Permission = "Create" | "Read" | "Edit" | "Delete" | "View All in Org";
export type Permissions = Record<Permission, boolean>;

const PERMISSIONS: Record<string, readonly Permission[]> = {
  Admin: ["Create", "Read", "Edit", "Delete", "View All in Org"],
  Editor: ["Create", "Read", "Edit"],
  Reader: ["Read"],
};

export const ROLES = Object.keys(PERMISSIONS);

export function permissionsOf(roles: readonly string[]): Permissions {
  const granted = new Set(roles.flatMap((role) => (Object.hasOwn(PERMISSIONS, role) ? PERMISSIONS[role] : [])));
  return {
    Create: granted.has("Create"),
    Read: granted.has("Read"),
    Edit: granted.has("Edit"),
    Delete: granted.has("Delete"),
    "View All in Org": granted.has("View All in Org"),
  };
}
