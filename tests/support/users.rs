//! Three tenants and the four users in each.

use serde_json::{Value, json};

/// The client ID of the API's app registration.
pub const API_CLIENT_ID: &str = "a0a0a0a0-0000-4000-8000-00000000a0a0";

/// The client ID of the single-page app that the tokens are issued to.
pub const SPA_CLIENT_ID: &str = "b0b0b0b0-0000-4000-8000-00000000b0b0";

/// A tenant.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tenant {
    pub name: &'static str,
    /// Its `tid`.
    pub id: &'static str,
}

pub const CONTOSO: Tenant = Tenant {
    name: "contoso",
    id: "11111111-1111-4111-8111-111111111111",
};
pub const FABRIKAM: Tenant = Tenant {
    name: "fabrikam",
    id: "22222222-2222-4222-8222-222222222222",
};
/// Exists, but is not on the allow-list.
pub const NORTHWIND: Tenant = Tenant {
    name: "northwind",
    id: "33333333-3333-4333-8333-333333333333",
};

pub const TENANTS: [Tenant; 3] = [CONTOSO, FABRIKAM, NORTHWIND];

/// The `tid` of all personal accounts.
pub const PERSONAL_ACCOUNTS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

/// The `tid` of a tenant that does not exist; each number gives another one.
pub fn absent_tenant(number: usize) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

/// A user who exists in every tenant, with a different `oid` in each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct User {
    pub name: &'static str,
    full_name: &'static str,
    roles: &'static [&'static str],
    /// The last group of the `oid`; the other groups are those of the tenant's ID.
    number: u8,
}

pub const ADMIN: User = User {
    name: "admin",
    full_name: "Ada Admin",
    roles: &["Admin"],
    number: 1,
};
pub const EDITOR: User = User {
    name: "editor",
    full_name: "Edgar Editor",
    roles: &["Editor"],
    number: 2,
};
pub const READER: User = User {
    name: "reader",
    full_name: "Rita Reader",
    roles: &["Reader"],
    number: 3,
};
pub const NOROLE: User = User {
    name: "norole",
    full_name: "Noor Norole",
    roles: &[],
    number: 4,
};

pub const USERS: [User; 4] = [ADMIN, EDITOR, READER, NOROLE];

impl User {
    /// The `oid` in that tenant.
    pub fn oid(self, tenant: Tenant) -> String {
        format!("{}-{:012}", &tenant.id[..23], self.number)
    }

    /// The pairwise `sub`, which differs for each app.
    pub fn sub(self, tenant: Tenant) -> String {
        format!("{}-{}-pairwise-subject-of-this-app", tenant.name, self.name)
    }

    /// The sign-in name.
    pub fn email(self, tenant: Tenant) -> String {
        format!("{}@{}.example", self.name, tenant.name)
    }

    /// The display name.
    pub fn full_name(self) -> &'static str {
        self.full_name
    }

    /// The `roles` claim, which Entra omits for users without roles.
    pub fn roles_claim(self) -> Option<Value> {
        (!self.roles.is_empty()).then(|| json!(self.roles))
    }
}
