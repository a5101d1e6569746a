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
        // Taken, not borrowed: what is being written might write a line of its own.
        let mut json = LINE.take();
        json.clear();
        json.push_str("{\"timestamp\":\"");
        write_time(&mut json);
        let metadata = event.metadata();
        let level = metadata.level().as_str();
        for part in [
            "\",\"level\":\"",
            level,
            "\",\"target\":\"",
            metadata.target(),
            "\"",
        ] {
            json.push_str(part);
        }
        event.record(&mut Fields(&mut json));
        if let Some(span) = context
            .event_scope()
            .and_then(|scope| scope.from_root().last())
            && let Some(fields) = span.extensions().get::<FormattedFields<N>>()
        {
            // Written by the same library's JSON.
            json.push_str(",\"span\":");
            json.push_str(&fields.fields);
        }
        json.push_str("}\n");
        let written = line.write_str(&json);
        LINE.set(json);
        written
    }
}

thread_local! {
    /// The line being written. Pushing to a text is many times cheaper than writing to whatever may be behind a writer.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };

    /// The last second a line was written in, and how it is spelled: lines come many to a second.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

/// The present (RFC 3339), to the microsecond.
fn write_time(json: &mut String) {
    #[expect(
        clippy::disallowed_methods,
        reason = "of the log's own time nothing depends"
    )]
    let now = SystemTime::now();
    let since_epoch = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since_epoch.as_secs() {
            *second = since_epoch.as_secs();
            *text = humantime::format_rfc3339_seconds(now).to_string();
        }
        json.push_str(text.trim_end_matches('Z'));
    });
    let mut digits = *b".000000Z";
    let mut rest = since_epoch.subsec_micros();
    for digit in digits.iter_mut().take(7).skip(1).rev() {
        *digit += u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
    json.push_str(str::from_utf8(&digits).unwrap_or_default());
}

/// Writes each field of an event as a member of an object. Writing to a text does not fail.
struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn name(&mut self, field: &Field) {
        self.0.push_str(",\"");
        self.0.push_str(field.name());
        self.0.push_str("\":");
    }

    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field);
        let _ = write!(self.0, "{value}");
    }

    fn quoted(&mut self, field: &Field, write: impl FnOnce(&mut Escaped<'_>) -> fmt::Result) {
        self.name(field);
        self.0.push('"');
        let _ = write(&mut Escaped(self.0));
        self.0.push('"');
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.plain(field, value);
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.quoted(field, |text| text.write_str(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.quoted(field, |text| write!(text, "{value:?}"));
    }
}

/// Text between the quotes of a JSON string (RFC 8259, section 7).
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let is_special = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
        // Without a way out of the loop, many bytes are looked at at once; hardly any text has a special one.
        if !text
            .bytes()
            .fold(false, |found, byte| found | is_special(byte))
        {
            self.0.push_str(text);
            return Ok(());
        }
        let mut rest = text;
        while let Some(index) = rest.bytes().position(is_special) {
            let (plain, special) = rest.split_at(index);
            self.0.push_str(plain);
            let mut characters = special.chars();
            match characters.next() {
                Some(character @ ('"' | '\\')) => write!(self.0, "\\{character}")?,
                Some(character) => write!(self.0, "\\u{:04x}", u32::from(character))?,
                None => {}
            }
            rest = characters.as_str();
        }
        self.0.push_str(rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_in_a_text_is_the_same_text_to_a_reader_of_json() {
        for text in [
            "",
            "plain",
            "a \"quote\"\\",
            "line\nbreak\u{1b}[31m\0",
            "é\u{2028}\u{1F4DD}",
            "\"",
        ] {
            let mut json = String::from("\"");
            write!(Escaped(&mut json), "{text}").unwrap();
            json.push('"');
            assert_eq!(
                serde_json::from_str::<String>(&json).unwrap(),
                text,
                "{json}"
            );
        }
    }
}
