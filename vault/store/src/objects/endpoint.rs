//! A store's endpoint, checked: plain http only to this machine.

use super::http::is_loopback;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Without a slash at its end.
    pub url: String,
    /// Host, and port if given.
    pub authority: String,
    /// Plain http to this machine.
    pub loopback: bool,
}

impl Endpoint {
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let url = url.trim_end_matches('/');
        let uri: http::Uri = url
            .parse()
            .map_err(|error| format!("the endpoint is no URL: {error}"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err("the endpoint must be https://host[:port]".to_owned());
        };
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err("the endpoint may hold no user and no query".to_owned());
        }
        let loopback = match scheme {
            "https" => false,
            "http" if is_loopback(authority.host()) => true,
            "http" => {
                return Err(format!(
                    "the endpoint {url} is plain http, which is only for this machine; use https"
                ));
            }
            _ => return Err(format!("the endpoint {url} is neither https nor http")),
        };
        Ok(Self {
            url: url.to_owned(),
            authority: authority.to_string(),
            loopback,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_only_for_this_machine() {
        assert!(Endpoint::parse("http://127.0.0.1:9000/").unwrap().loopback);
        assert!(Endpoint::parse("http://localhost:1").unwrap().loopback);
        assert!(!Endpoint::parse("https://s3.example.org").unwrap().loopback);
        for url in [
            "http://10.0.0.7:9000",
            "http://s3.example.org",
            "ftp://127.0.0.1",
            "s3.example.org",
            "https://user:secret@s3.example.org",
            "",
        ] {
            let cause = Endpoint::parse(url).unwrap_err();
            assert!(!cause.contains("secret"), "{cause}");
        }
    }

    #[test]
    fn the_trailing_slash_goes_and_the_path_stays() {
        let endpoint = Endpoint::parse("http://127.0.0.1:10000/devstoreaccount1/").unwrap();
        assert_eq!(endpoint.url, "http://127.0.0.1:10000/devstoreaccount1");
        assert_eq!(endpoint.authority, "127.0.0.1:10000");
    }
}
