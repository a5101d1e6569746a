//! `/docs`: Swagger UI, without inline scripts and without files of other servers.

use std::{
    borrow::Cow,
    convert::Infallible,
    iter,
    sync::{Arc, OnceLock},
};

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::Path,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
            ETAG, IF_NONE_MATCH,
        },
    },
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::stream;
use utoipa_swagger_ui::{Config, oauth};

use super::Docs;
use crate::error::ApiError;

/// The page. It has no inline script.
const PAGE: &str = include_str!("page.html");

/// The files of Swagger UI that the page and the sign-in use.
const FILES: [&str; 9] = [
    "favicon-16x16.png",
    "favicon-32x32.png",
    "index.css",
    "oauth2-redirect.html",
    "oauth2-redirect.js",
    "swagger-initializer.js",
    "swagger-ui-bundle.js",
    "swagger-ui-standalone-preset.js",
    "swagger-ui.css",
];

/// The size of the parts in which a file is sent, in bytes. A connection counts as busy until the
/// client has read most of the file.
const CHUNK: usize = 16 * 1024;

/// A file, as it is sent.
struct File {
    name: &'static str,
    bytes: Bytes,
    headers: HeaderMap,
    /// Computed when the file is first requested, because most processes never serve it.
    etag: OnceLock<HeaderValue>,
}

/// The page and its files, at `/docs/`. `/` and `/docs` redirect to it, also below a path prefix.
pub(super) fn router<S: Clone + Send + Sync + 'static>(docs: &Docs) -> Router<S> {
    let files: Arc<[File]> = files(docs).into();
    let page = Arc::clone(&files);
    let to_page = get(async || Redirect::temporary("docs/"));
    Router::new()
        .route("/", to_page.clone())
        .route("/docs", to_page)
        .route(
            "/docs/",
            get(async move |headers| respond(&page, "", &headers)),
        )
        .route(
            "/docs/{file}",
            get(async move |Path(name): Path<String>, headers| respond(&files, &name, &headers)),
        )
}

fn files(docs: &Docs) -> Vec<File> {
    const DESCRIPTION: [&str; 1] = ["../openapi.json"];
    let config = match docs.spa_client_id {
        Some(client_id) => {
            let oauth = oauth::Config::new()
                .client_id(&client_id.to_string())
                .scopes(docs.scopes())
                .use_pkce_with_authorization_code_grant(true);
            Config::with_oauth_config(DESCRIPTION, oauth)
        }
        None => Config::new(DESCRIPTION),
    };
    let config = config
        .validator_url("none")
        .display_request_duration(true)
        // Without the bar that opens the description of another API.
        .use_base_layout()
        // The sign-in survives a reload of the page.
        .persist_authorization(true);
    // The page contacts the authority only to sign users in.
    let policy = format!(
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
         connect-src 'self' {}; frame-ancestors 'none'",
        docs.authority.origin()
    );
    let config = Arc::new(config);
    let files = FILES.into_iter().filter_map(|name| {
        let file = utoipa_swagger_ui::serve(name, Arc::clone(&config)).ok()??;
        let encoding = file.gzpipped.then_some("gzip");
        Some(File::new(
            name,
            file.bytes,
            &file.content_type,
            encoding,
            &policy,
        ))
    });
    let page = File::new("", PAGE.as_bytes().into(), "text/html", None, &policy);
    iter::once(page).chain(files).collect()
}

impl File {
    fn new(
        name: &'static str,
        bytes: Cow<'static, [u8]>,
        content_type: &str,
        encoding: Option<&str>,
        policy: &str,
    ) -> Self {
        let mut headers = HeaderMap::new();
        let mut set = |name: HeaderName, value: &str| {
            let value = HeaderValue::try_from(value).expect("printable ASCII");
            headers.insert(name, value);
        };
        set(CONTENT_SECURITY_POLICY, policy);
        // The page and Swagger UI's files are UTF-8.
        let charset = if content_type.starts_with("text/") {
            "; charset=utf-8"
        } else {
            ""
        };
        set(CONTENT_TYPE, &format!("{content_type}{charset}"));
        // A browser asks each time whether the file has changed, and 304 is the usual response.
        set(CACHE_CONTROL, "no-cache");
        if let Some(encoding) = encoding {
            set(CONTENT_ENCODING, encoding);
        }
        Self {
            name,
            bytes: match bytes {
                Cow::Borrowed(bytes) => Bytes::from_static(bytes),
                Cow::Owned(bytes) => bytes.into(),
            },
            headers,
            etag: OnceLock::new(),
        }
    }

    /// The hash of the content (RFC 9110, section 8.8.3).
    fn etag(&self) -> &HeaderValue {
        self.etag.get_or_init(|| {
            let hash = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, &self.bytes));
            HeaderValue::try_from(format!("\"{hash}\"")).expect("printable ASCII")
        })
    }
}

fn respond(files: &[File], name: &str, request: &HeaderMap) -> Response {
    let Some(file) = files.iter().find(|file| file.name == name) else {
        return ApiError::RouteNotFound.into_response();
    };
    let mut headers = file.headers.clone();
    headers.insert(ETAG, file.etag().clone());
    if request.get(IF_NONE_MATCH) == Some(file.etag()) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    let length = [(CONTENT_LENGTH, HeaderValue::from(file.bytes.len()))];
    let starts = (0..file.bytes.len()).step_by(CHUNK);
    let bytes = file.bytes.clone();
    let chunks = starts.map(move |start| {
        let end = bytes.len().min(start + CHUNK);
        Ok::<_, Infallible>(bytes.slice(start..end))
    });
    let body = Body::from_stream(stream::iter(chunks));
    (headers, length, body).into_response()
}
