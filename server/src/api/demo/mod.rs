//! The page `/demo`, where one sees an event arrive. For development: it triggers for whoever opens it.
//!
//! Everything it is made of is compiled in and served from here; nothing comes from elsewhere, and the page says so to
//! the browser.

use std::sync::Arc;

use actix_http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, HOST, HeaderMap, LOCATION, ORIGIN};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::error::Refusal;
use super::pusher::publish;
use super::{Api, readable};
use crate::apps::App;

/// What the page is about.
#[derive(Debug)]
pub struct Demo {
    pub app: Arc<App>,
    /// The app's secret, for examples that can be copied as they are. Only if it is that of the ready-made app, which
    /// everybody knows.
    pub secret: Option<&'static str>,
}

struct Asset {
    path: &'static str,
    content_type: &'static str,
    content: &'static str,
}

const PAGE: Asset = Asset {
    path: "/demo",
    content_type: "text/html; charset=utf-8",
    content: include_str!("index.html"),
};

const ASSETS: [Asset; 5] = [
    Asset {
        path: "/demo/demo.js",
        content_type: "text/javascript; charset=utf-8",
        content: include_str!("demo.js"),
    },
    Asset {
        path: "/demo/demo.css",
        content_type: "text/css; charset=utf-8",
        content: include_str!("demo.css"),
    },
    Asset {
        path: "/demo/icon.svg",
        content_type: "image/svg+xml",
        content: include_str!("icon.svg"),
    },
    Asset {
        path: "/demo/pusher.min.js",
        content_type: "text/javascript; charset=utf-8",
        content: include_str!("pusher.min.js"),
    },
    Asset {
        path: "/demo/pusher.min.js.LICENSE.txt",
        content_type: "text/plain; charset=utf-8",
        content: include_str!("pusher.min.js.LICENSE.txt"),
    },
];

/// Nothing from elsewhere, nothing inline, in nobody's frame. Sockets are allowed to any host because browsers do not
/// agree on whether 'self' covers them.
const POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'; object-src 'none'";

/// `/demo` and what is below it.
pub fn routes(config: &mut web::ServiceConfig) {
    for asset in std::iter::once(PAGE).chain(ASSETS) {
        let path = asset.path;
        let (content_type, content) = (asset.content_type, asset.content);
        config.service(readable(path, move || async move {
            HttpResponse::Ok()
                .content_type(content_type)
                .insert_header(("Content-Security-Policy", POLICY))
                .insert_header(("X-Content-Type-Options", "nosniff"))
                .insert_header(("Referrer-Policy", "no-referrer"))
                // A newer server has a newer page.
                .insert_header((CACHE_CONTROL, "no-cache"))
                .body(content)
        }));
    }
    config
        .service(readable("/demo/", async || {
            HttpResponse::PermanentRedirect()
                .insert_header((LOCATION, "../demo"))
                .finish()
        }))
        .service(readable("/demo/app.json", app))
        .service(web::resource("/demo/trigger").route(web::post().to(trigger)));
}

/// What the page has to know of the app.
async fn app(api: web::Data<Api>) -> Result<HttpResponse, Refusal> {
    let demo = enabled(&api)?;
    let app = &demo.app;
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(json!({
            "id": app.id.as_str(),
            "key": app.key.as_str(),
            "name": app.name,
            "secret": demo.secret,
        })))
}

/// Publishes in the app's name, for our own page only.
async fn trigger(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Refusal> {
    let demo = enabled(&api)?;
    if !is_from_own_page(request.headers()) {
        let message = "Only the demo page itself may trigger here; use the HTTP API, /apps/{app_id}/events";
        return Err(Refusal::new(StatusCode::FORBIDDEN, message));
    }
    let body = api.body.read(request.headers(), payload).await?;
    let answer = publish::publish_event(&api, &demo.app, &body).await?;
    Ok(HttpResponse::Ok().content_type("application/json").body(answer))
}

fn enabled(api: &Api) -> Result<&Demo, Refusal> {
    let missing = || Refusal::new(StatusCode::NOT_FOUND, "Not found");
    api.demo.as_ref().ok_or_else(missing)
}

/// Whether a browser says that the request comes from a page of this very origin (Fetch standard: a page can set neither
/// header itself). `Sec-Fetch-Site` is sent on TLS and to this machine only; elsewhere the origin has to name our host.
fn is_from_own_page(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return site == "same-origin";
    }
    let origin = text(ORIGIN.as_str()).and_then(|origin| origin.split_once("://"));
    origin.is_some_and(|(_, authority)| text(HOST.as_str()) == Some(authority))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn only_the_pages_of_this_origin_may_trigger() {
        let cases: [(&[(&'static str, &'static str)], bool); 7] = [
            (&[], false),
            (&[("host", "a:1")], false),
            (&[("host", "a:1"), ("origin", "http://a:1")], true),
            (&[("host", "a:1"), ("origin", "http://b:1")], false),
            (&[("host", "a:1"), ("origin", "null")], false),
            (&[("host", "a:1"), ("sec-fetch-site", "same-origin")], true),
            (
                &[
                    ("host", "a:1"),
                    ("origin", "http://a:1"),
                    ("sec-fetch-site", "same-site"),
                ],
                false,
            ),
        ];
        for (given, allowed) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            assert_eq!(is_from_own_page(&headers), allowed, "{given:?}");
        }
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for asset in std::iter::once(PAGE).chain(ASSETS) {
            if ["text/html", "text/css"]
                .iter()
                .any(|kind| asset.content_type.starts_with(kind))
            {
                for far in [
                    "src=\"http",
                    "href=\"http",
                    "src=\"//",
                    "url(http",
                    "<script>",
                    "style=\"",
                    "onclick",
                ] {
                    assert!(!asset.content.contains(far), "{} holds {far}", asset.path);
                }
            }
        }
    }
}
