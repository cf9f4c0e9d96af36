//! The request that posts a message: method, path, fields and body, each in the language of all templates.

use std::io::Write;

use super::Wanted;
use super::account::Job;
use crate::engine::message;
use crate::engine::template::Template;
use crate::engine::text::{Filling, Scope, Spelling, Text};
use crate::engine::worker::Plan;
use crate::net::header::{is_token, parse_header};

/// See the module's head.
#[derive(Debug)]
pub(super) struct Request {
    method: String,
    authority: String,
    path: Text,
    fields: Vec<(String, Text)>,
    content_type: &'static str,
    body: Option<Template>,
}

impl Request {
    /// Reads what was asked for.
    pub(super) fn read(wanted: &Wanted, plan: &Plan) -> Result<Self, String> {
        let method = wanted.method.clone();
        if method.is_empty() || !method.bytes().all(is_token) {
            return Err(format!("--publish-method {method:?}: not a method (RFC 9110 section 9.1)"));
        }
        let scope = Scope { message: true, ..plan.conversation.scope() };
        let path = Text::read("--publish-url", &wanted.target.path, scope, Spelling::Url)?;
        let mut fields = Vec::new();
        for field in &wanted.headers {
            let (name, value) = parse_header("--publish-header", field)?;
            if name.eq_ignore_ascii_case("content-length") {
                return Err("--publish-header Content-Length: the request sets this field itself".into());
            }
            fields.push((name.to_owned(), Text::read("--publish-header", value, scope, Spelling::Plain)?));
        }
        let body = wanted.body.as_deref();
        let body = body.map(|body| Template::read("--publish-body", body, plan.shape, scope)).transpose()?;
        let around = body.as_ref().or(plan.conversation.template());
        let content_type = match around {
            Some(template) if template.is_json() => "application/json",
            None if plan.shape.is_binary() => "application/octet-stream",
            _ => "text/plain",
        };
        let own_type = fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let content_type = if own_type { "" } else { content_type };
        Ok(Self { method, authority: wanted.target.authority.clone(), path, fields, content_type, body })
    }

    /// Appends the request that publishes a message; `more` are further fields, each with its line end.
    pub(super) fn write(&self, plan: &Plan, job: &Job, more: &str, out: &mut Vec<u8>) {
        let stamp = job.stamp(plan.run_id);
        let filling = Filling {
            topic: Some(job.topic),
            message: Some((stamp.sequence, plan.shape.size_of(&stamp))),
            ..plan.conversation.filling(plan.conversation.topics().first_member(job.topic), &[])
        };
        let around = match &self.body {
            Some(body) => body.around(&filling),
            None => plan.conversation.around(&filling),
        };
        let mut body = Vec::new();
        message::write_message(&stamp, plan.shape, &around, &mut body);
        let path = self.path.fill_text(&filling);
        let (method, authority, len) = (&self.method, &self.authority, body.len());
        // Writing to a vector can't fail.
        let _ = write!(out, "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {len}\r\n");
        if !self.content_type.is_empty() {
            let _ = write!(out, "Content-Type: {}\r\n", self.content_type);
        }
        for (name, value) in &self.fields {
            // A value from a file must not make two fields of one.
            let value: String =
                value.fill_text(&filling).chars().filter(|letter| !letter.is_control()).collect();
            let _ = write!(out, "{name}: {value}\r\n");
        }
        out.extend_from_slice(more.as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&body);
    }
}
