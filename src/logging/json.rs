//! A log line as one JSON object, with every field at its top level.
//!
//! tracing-subscriber's own JSON takes a tenth of what a whole request does; there is a line for each request.

use std::{
    cell::RefCell,
    fmt::{self, Write as _},
    time::SystemTime,
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, format::Writer},
    registry::LookupSpan,
};

/// The format of lines for machines.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        line.write_str("{\"timestamp\":\"")?;
        write_time(&mut line)?;
        let metadata = event.metadata();
        for part in
            ["\",\"level\":\"", metadata.level().as_str(), "\",\"target\":\"", metadata.target(), "\""]
        {
            line.write_str(part)?;
        }
        let mut fields = Fields { line: line.by_ref(), result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        if let Some(span) = context.event_scope().and_then(|scope| scope.from_root().last())
            && let Some(fields) = span.extensions().get::<FormattedFields<N>>()
        {
            // Written by the same library's JSON.
            write!(line, ",\"span\":{}", fields.fields)?;
        }
        line.write_str("}\n")
    }
}

thread_local! {
    /// The last second a line was written in, and how it is spelled: lines come many to a second.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

/// The present (RFC 3339), to the microsecond.
fn write_time(line: &mut Writer<'_>) -> fmt::Result {
    #[expect(clippy::disallowed_methods, reason = "of the log's own time nothing depends")]
    let now = SystemTime::now();
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since_epoch.as_secs() {
            *second = since_epoch.as_secs();
            *text = humantime::format_rfc3339_seconds(now).to_string();
        }
        line.write_str(text.trim_end_matches('Z'))
    })?;
    let mut digits = *b".000000Z";
    let mut rest = since_epoch.subsec_micros();
    for digit in digits.iter_mut().take(7).skip(1).rev() {
        *digit += u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
    line.write_str(str::from_utf8(&digits).unwrap_or_default())
}

/// Writes each field of an event as a member of an object.
struct Fields<'a> {
    line: Writer<'a>,
    result: fmt::Result,
}

impl Fields<'_> {
    fn member(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        let line = &mut self.line;
        self.result = self.result.and_then(|()| {
            line.write_str(",\"")?;
            line.write_str(field.name())?;
            line.write_str("\":")?;
            value(line)
        });
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.member(field, |line| write!(line, "{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, |line| write!(line, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, |line| write!(line, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, |line| write!(line, "{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, |line| {
            line.write_char('"')?;
            Escaped(line).write_str(value)?;
            line.write_char('"')
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.member(field, |line| {
            line.write_char('"')?;
            write!(Escaped(line), "{value:?}")?;
            line.write_char('"')
        });
    }
}

/// Text between the quotes of a JSON string (RFC 8259, section 7).
struct Escaped<'a, 'b>(&'a mut Writer<'b>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let is_special = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
        // Without a way out of the loop, many bytes are looked at at once; hardly any text has a special one.
        if !text.bytes().fold(false, |found, byte| found | is_special(byte)) {
            return self.0.write_str(text);
        }
        let mut rest = text;
        while let Some(index) = rest.bytes().position(is_special) {
            let (plain, special) = rest.split_at(index);
            self.0.write_str(plain)?;
            let mut characters = special.chars();
            match characters.next() {
                Some(character @ ('"' | '\\')) => write!(self.0, "\\{character}")?,
                Some(character) => write!(self.0, "\\u{:04x}", u32::from(character))?,
                None => {}
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_in_a_text_is_the_same_text_to_a_reader_of_json() {
        for text in ["", "plain", "a \"quote\"\\", "line\nbreak\u{1b}[31m\0", "é\u{2028}\u{1F4DD}", "\""] {
            let mut json = String::from("\"");
            write!(Escaped(&mut Writer::new(&mut json)), "{text}").unwrap();
            json.push('"');
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text, "{json}");
        }
    }
}
