//! Access tokens as Entra issues them, and tools to break them.

use std::sync::LazyLock;

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::users::{API_CLIENT_ID, SPA_CLIENT_ID, Tenant, User};

/// The lifetime of a token, in seconds.
const LIFETIME: u64 = 75 * 60;

/// A key pair and the key ID under which it is published.
#[derive(Clone)]
pub struct SigningKey {
    pair: &'static RsaKeyPair,
    pub key_id: String,
}

/// Generated once per process, because generating a key pair takes longer than most tests.
static PAIRS: LazyLock<[RsaKeyPair; 3]> = LazyLock::new(|| {
    [KeySize::Rsa2048; 3].map(|size| RsaKeyPair::generate(size).expect("a key pair"))
});

impl SigningKey {
    /// The key that all tenants publish and sign with by default.
    pub fn first() -> Self {
        Self::number(0)
    }

    /// A different key.
    pub fn second() -> Self {
        Self::number(1)
    }

    /// A third key.
    pub fn third() -> Self {
        Self::number(2)
    }

    /// The same key under another key ID.
    pub fn named(self, key_id: &str) -> Self {
        Self {
            key_id: key_id.to_owned(),
            ..self
        }
    }

    fn number(index: usize) -> Self {
        let pair = &PAIRS[index];
        // Entra's key IDs are the base64url encoding of a certificate's 20-byte thumbprint.
        let thumbprint = digest(&SHA256, pair.public_key().as_ref());
        Self {
            pair,
            key_id: encode(&thumbprint.as_ref()[..20]),
        }
    }

    /// The public key as Entra publishes it: without `alg`, and with a placeholder in the issuer.
    pub fn jwk(&self) -> Value {
        let public = self.pair.public_key();
        json!({
            "kty": "RSA",
            "use": "sig",
            "kid": self.key_id,
            "x5t": self.key_id,
            "n": encode(public.modulus().big_endian_without_leading_zero()),
            "e": encode(public.exponent().big_endian_without_leading_zero()),
            "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0",
        })
    }

    /// The public key in DER, which an algorithm confusion attack uses as an HMAC secret.
    pub fn public_der(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    fn sign(&self, message: &str, padding: &'static dyn RsaEncoding) -> Vec<u8> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(
                padding,
                &SystemRandom::new(),
                message.as_bytes(),
                &mut signature,
            )
            .expect("a signature");
        signature
    }
}

/// A token builder: change any part, then call [`Token::sign`].
#[derive(Clone)]
pub struct Token {
    header: Map<String, Value>,
    claims: Map<String, Value>,
    key: SigningKey,
}

impl Token {
    /// A version 1 token, which Entra issues for APIs by default.
    pub fn v1(tenant: Tenant, user: User, now: u64) -> Self {
        Self::new(tenant, user, now)
            .with("ver", "1.0")
            .with("iss", format!("https://sts.windows.net/{}/", tenant.id))
            .with("aud", format!("api://{API_CLIENT_ID}"))
            .with("acr", "1")
            .with("amr", json!(["pwd", "mfa"]))
            .with("appid", SPA_CLIENT_ID)
            .with("appidacr", "0")
            .with("ipaddr", "203.0.113.7")
            .with("unique_name", user.email(tenant))
            .with("upn", user.email(tenant))
    }

    /// A version 2 token.
    pub fn v2(tenant: Tenant, user: User, authority: &str, now: u64) -> Self {
        Self::new(tenant, user, now)
            .with("ver", "2.0")
            .with("iss", format!("{authority}/{}/v2.0", tenant.id))
            .with("aud", API_CLIENT_ID)
            .with("azp", SPA_CLIENT_ID)
            .with("azpacr", "0")
            .with("preferred_username", user.email(tenant))
    }

    fn new(tenant: Tenant, user: User, now: u64) -> Self {
        let key = SigningKey::first();
        let mut token = Self {
            header: Map::new(),
            claims: Map::new(),
            key,
        }
        .with_header("typ", "JWT")
        .with_header("alg", "RS256")
        .with("tid", tenant.id)
        .with("oid", user.oid(tenant))
        .with("sub", user.sub(tenant))
        .with("name", user.full_name())
        .with("scp", "access_as_user")
        .with("iat", now)
        .with("nbf", now)
        .with("exp", now + LIFETIME)
        .with("aio", "AXQAi/8TAAAA")
        .with("rh", "0.AAAA")
        .with("uti", "u0000000000000000000AA");
        if let Some(roles) = user.roles_claim() {
            token = token.with("roles", roles);
        }
        token.signed_by(SigningKey::first())
    }

    /// Sets a claim.
    pub fn with(mut self, claim: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(claim.to_owned(), value.into());
        self
    }

    /// Removes a claim.
    pub fn without(mut self, claim: &str) -> Self {
        self.claims.remove(claim);
        self
    }

    /// Sets a header parameter.
    pub fn with_header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Removes a header parameter.
    pub fn without_header(mut self, name: &str) -> Self {
        self.header.remove(name);
        self
    }

    /// Signs with this key and sets its key ID in the header.
    pub fn signed_by(mut self, key: SigningKey) -> Self {
        self.key = key;
        let key_id = self.key.key_id.clone();
        self.with_header("kid", key_id.clone())
            .with_header("x5t", key_id)
    }

    /// Signs with RS256, even if the header names another algorithm.
    pub fn sign(&self) -> String {
        self.sign_texts(&self.header_text(), &self.claims_text())
    }

    /// Signs with RSASSA-PSS instead of PKCS #1 v1.5 padding.
    pub fn sign_with_pss(&self) -> String {
        let message = message(&self.header_text(), &self.claims_text());
        let signature = self.key.sign(&message, &RSA_PSS_SHA256);
        format!("{message}.{}", encode(&signature))
    }

    /// Signs with HMAC-SHA256 and this secret.
    pub fn sign_with_hmac(&self, secret: &[u8]) -> String {
        let message = message(&self.header_text(), &self.claims_text());
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
        format!(
            "{message}.{}",
            encode(aws_lc_rs::hmac::sign(&key, message.as_bytes()).as_ref())
        )
    }

    /// Returns the token with an invalid signature, which takes no time to compute.
    pub fn unsigned(&self) -> String {
        format!("{}.AAAA", message(&self.header_text(), &self.claims_text()))
    }

    /// Signs arbitrary texts as header and claims.
    pub fn sign_texts(&self, header: &str, claims: &str) -> String {
        let message = message(header, claims);
        let signature = self.key.sign(&message, &RSA_PKCS1_SHA256);
        format!("{message}.{}", encode(&signature))
    }

    pub fn header_text(&self) -> String {
        Value::Object(self.header.clone()).to_string()
    }

    pub fn claims_text(&self) -> String {
        Value::Object(self.claims.clone()).to_string()
    }
}

fn message(header: &str, claims: &str) -> String {
    format!(
        "{}.{}",
        encode(header.as_bytes()),
        encode(claims.as_bytes())
    )
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
