//! The JSON members of a task. Only the tests of these members name them elsewhere.

use serde_json::{Value, json};

/// The body that creates a task with this title, or renames a task.
pub fn title_body(title: &str) -> Value {
    json!({ "title": title })
}

/// The body that changes whether a task is done.
pub fn completed_body(completed: bool) -> Value {
    json!({ "completed": completed })
}

/// The body that changes both. A task in a response has the same two members.
pub fn title_and_completed_body(title: &str, completed: bool) -> Value {
    json!({ "title": title, "completed": completed })
}

/// The title of a task in a response.
pub fn title(task: &Value) -> &str {
    task["title"].as_str().expect("a title")
}

/// Whether a task in a response is done.
pub fn is_completed(task: &Value) -> bool {
    task["completed"].as_bool().expect("a boolean")
}
