//! Which trace a request belongs to, if whoever sent it says so.

use axum::http::{HeaderMap, HeaderName};

/// <https://www.w3.org/TR/trace-context/#traceparent-header>
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// <https://www.w3.org/TR/trace-context/#tracestate-header>
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The trace id of the request's `traceparent`, 32 hexadecimal digits; `None` unless there is exactly one such
/// header, and it is well-formed.
#[must_use]
pub fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let mut fields = value.split('-');
    let [version, trace_id, parent_id, flags] = [
        (fields.next()?, 2),
        (fields.next()?, 32),
        (fields.next()?, 16),
        (fields.next()?, 2),
    ];
    let is_hex = |(field, length): (&str, usize)| {
        field.len() == length
            && field
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_zero = |(field, _): (&str, usize)| field.bytes().all(|byte| byte == b'0');
    let is_well_formed = [version, trace_id, parent_id, flags].into_iter().all(is_hex)
        && !is_zero(trace_id)
        && !is_zero(parent_id)
        && version.0 != "ff"
        // Later versions may have more fields.
        && (version.0 != "00" || fields.next().is_none());
    is_well_formed.then_some(trace_id.0)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(values: &[&'static str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (TRACEPARENT, HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_trace_id_is_taken_from_a_well_formed_header_alone() {
        assert_eq!(
            trace_id(&headers(&[GOOD])),
            Some("0af7651916cd43dd8448eb211c80319c")
        );
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes-then";
        assert_eq!(
            trace_id(&headers(&[later])),
            Some("0af7651916cd43dd8448eb211c80319c")
        );
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c\"-b7ad6b7169203331-1",
        ] {
            assert_eq!(trace_id(&headers(&[bad])), None, "{bad}");
        }
        assert_eq!(
            trace_id(&headers(&[GOOD, GOOD])),
            None,
            "of two headers neither counts"
        );
        assert_eq!(trace_id(&headers(&[])), None);
    }
}
