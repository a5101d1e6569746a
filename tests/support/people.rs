//! Three organisations and the four people in each.

use serde_json::{Value, json};

/// The client id of the API's app registration.
pub const API_CLIENT_ID: &str = "a0a0a0a0-0000-4000-8000-00000000a0a0";

/// The client id of the single-page app the tokens are issued to.
pub const SPA_CLIENT_ID: &str = "b0b0b0b0-0000-4000-8000-00000000b0b0";

/// A tenant of Entra.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Organisation {
    pub name: &'static str,
    /// Its `tid`.
    pub tenant: &'static str,
}

pub const CONTOSO: Organisation = Organisation {
    name: "contoso",
    tenant: "11111111-1111-4111-8111-111111111111",
};
pub const FABRIKAM: Organisation = Organisation {
    name: "fabrikam",
    tenant: "22222222-2222-4222-8222-222222222222",
};
/// Exists, but is not on the allow-list.
pub const NORTHWIND: Organisation = Organisation {
    name: "northwind",
    tenant: "33333333-3333-4333-8333-333333333333",
};

pub const ORGANISATIONS: [Organisation; 3] = [CONTOSO, FABRIKAM, NORTHWIND];

/// The `tid` of a tenant that does not exist, another one for each number.
pub fn absent_tenant(number: usize) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

/// Someone, in every organisation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Person {
    pub name: &'static str,
    full_name: &'static str,
    roles: &'static [&'static str],
    /// The end of the person's `oid`; its start is the tenant's.
    number: u8,
}

pub const ADMIN: Person = Person {
    name: "admin",
    full_name: "Ada Admin",
    roles: &["Admin"],
    number: 1,
};
pub const EDITOR: Person = Person {
    name: "editor",
    full_name: "Edgar Editor",
    roles: &["Editor"],
    number: 2,
};
pub const READER: Person = Person {
    name: "reader",
    full_name: "Rita Reader",
    roles: &["Reader"],
    number: 3,
};
pub const NOROLE: Person = Person {
    name: "norole",
    full_name: "Noor Norole",
    roles: &[],
    number: 4,
};

pub const PEOPLE: [Person; 4] = [ADMIN, EDITOR, READER, NOROLE];

impl Person {
    /// The person's `oid` in that organisation.
    pub fn oid(self, organisation: Organisation) -> String {
        format!("{}-{:012}", &organisation.tenant[..23], self.number)
    }

    /// Their `sub`: pairwise, another one for each app.
    pub fn sub(self, organisation: Organisation) -> String {
        format!(
            "{}-{}-pairwise-subject-of-this-app",
            organisation.name, self.name
        )
    }

    /// Their sign-in name.
    pub fn email(self, organisation: Organisation) -> String {
        format!("{}@{}.example", self.name, organisation.name)
    }

    /// Their name for other people.
    pub fn full_name(self) -> &'static str {
        self.full_name
    }

    /// The `roles` claim; Entra leaves it out for someone without roles.
    pub fn roles_claim(self) -> Option<Value> {
        (!self.roles.is_empty()).then(|| json!(self.roles))
    }
}
