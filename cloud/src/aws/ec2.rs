//! The Query API of EC2: a form is sent, XML comes back (Amazon EC2 API Reference, "Query requests").

use bytes::Bytes;
use reqwest::Method;

use super::Tags;
use super::http::{ANSWER, Call, Http};
use super::xml::Element;
use crate::{CloudError, Kind};

const VERSION: &str = "2016-11-15";
/// Of one answer with several pages; the most that DescribeInstances and its like take.
pub(super) const PAGE: &str = "1000";
/// A million of anything is no small firm's account, but a service that never says that it is done.
const MOST_PAGES: usize = 1_000;

#[derive(Debug, Clone)]
pub(super) struct Ec2 {
    http: Http,
    url: String,
}

/// An action and its parameters.
#[derive(Debug, Clone)]
pub(super) struct Form {
    action: &'static str,
    pairs: Vec<(String, String)>,
}

impl Form {
    pub(super) fn new(action: &'static str) -> Self {
        Form {
            action,
            pairs: Vec::new(),
        }
    }

    pub(super) fn set(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.pairs.push((name.into(), value.to_string()));
        self
    }

    pub(super) fn maybe(self, name: impl Into<String>, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.set(name, value),
            None => self,
        }
    }

    #[cfg(test)]
    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    fn body(&self) -> Bytes {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.append_pair("Action", self.action)
            .append_pair("Version", VERSION);
        body.extend_pairs(&self.pairs);
        Bytes::from(body.finish())
    }

    /// Tags of what an action makes, by the kinds of things that it makes.
    pub(super) fn tags(mut self, of: &[(&str, &Tags)]) -> Self {
        for (number, (kind, tags)) in (1..).zip(of) {
            self = self.set(format!("TagSpecification.{number}.ResourceType"), kind);
            for (place, (name, value)) in (1..).zip(*tags) {
                let tag = format!("TagSpecification.{number}.Tag.{place}");
                self = self
                    .set(format!("{tag}.Key"), name)
                    .set(format!("{tag}.Value"), value);
            }
        }
        self
    }

    pub(super) fn filter(self, number: usize, name: &str, values: &[&str]) -> Self {
        let filter = format!("Filter.{number}");
        let named = self.set(format!("{filter}.Name"), name);
        (1..).zip(values).fold(named, |form, (place, value)| {
            form.set(format!("{filter}.Value.{place}"), value)
        })
    }
}

impl Ec2 {
    pub(super) fn new(http: Http, url: String) -> Self {
        Ec2 { http, url }
    }

    /// `attempted` is for errors: `register the image "x"`.
    pub(super) async fn call(&self, form: Form, attempted: &str) -> Result<Element, CloudError> {
        let call = Call {
            service: "ec2",
            method: Method::POST,
            url: format!("{}/", self.url),
            headers: vec![(
                "content-type",
                "application/x-www-form-urlencoded; charset=utf-8".into(),
            )],
            body: form.body(),
            digest: None,
            timeout: ANSWER,
            lane: 0,
            attempted: attempted.to_owned(),
        };
        let answer = self.http.answer(&call, refusal).await?;
        Element::parse(&answer)
            .map_err(|why| CloudError::new(attempted, Kind::Unavailable, "", why))
    }

    /// All items of a list that may have several pages.
    pub(super) async fn all(
        &self,
        form: Form,
        list: &str,
        attempted: &str,
    ) -> Result<Vec<Element>, CloudError> {
        let mut found = Vec::new();
        let keep = |item: &Element| found.push(item.clone());
        self.each(form, list, PAGE, attempted, keep).await?;
        Ok(found)
    }

    /// Shows each item of such a list, `page` of them at a time, and keeps none.
    pub(super) async fn each(
        &self,
        form: Form,
        list: &str,
        page: &str,
        attempted: &str,
        mut see: impl FnMut(&Element),
    ) -> Result<(), CloudError> {
        let mut next = String::new();
        for _ in 0..MOST_PAGES {
            let form = form.clone().set("MaxResults", page);
            let form = form.maybe("NextToken", Some(&next).filter(|next| !next.is_empty()));
            let answer = self.call(form, attempted).await?;
            answer.items(&[list]).for_each(&mut see);
            let more = answer.text_at(&["nextToken"]);
            if more.is_empty() || more == next {
                return Ok(());
            }
            next = more.to_owned();
        }
        let why = format!("the answer has more than {MOST_PAGES} pages");
        Err(CloudError::new(attempted, Kind::Refused, "", why))
    }
}

/// `Response/Errors/Error/{Code,Message}`.
fn refusal(_: &str, body: &[u8]) -> (String, String) {
    let Ok(root) = Element::parse(body) else {
        return (String::new(), String::new());
    };
    let part = |name| {
        let text = root.text_at(&["Errors", "Error", name]);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    (part("Code"), part("Message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_filters_are_numbered_from_one() {
        let tags = vec![
            ("a".to_owned(), "1".to_owned()),
            ("b".to_owned(), "2".to_owned()),
        ];
        let form = Form::new("X")
            .tags(&[("instance", &tags)])
            .filter(1, "n", &["v", "w"]);
        let pairs: Vec<String> = form.pairs.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(
            pairs,
            [
                "TagSpecification.1.ResourceType=instance",
                "TagSpecification.1.Tag.1.Key=a",
                "TagSpecification.1.Tag.1.Value=1",
                "TagSpecification.1.Tag.2.Key=b",
                "TagSpecification.1.Tag.2.Value=2",
                "Filter.1.Name=n",
                "Filter.1.Value.1=v",
                "Filter.1.Value.2=w",
            ]
        );
    }

    #[test]
    fn a_refusal_is_read_and_anything_else_is_none() {
        let xml = b"<Response><Errors><Error><Code>X.Y</Code><Message>no\n such</Message></Error></Errors></Response>";
        assert_eq!(refusal("", xml), ("X.Y".to_owned(), "no such".to_owned()));
        assert_eq!(refusal("", b"<html>"), (String::new(), String::new()));
    }
}
