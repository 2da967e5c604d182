//! The HTTP API of Pusher Channels. Publishing is matched by hand in [`super::front`]; the rest are routes.

pub mod history;
pub mod legacy;
pub mod publish;
pub mod query;

use actix_web::web;

use super::readable;

pub fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/apps/{app_id}")
            .service(readable("/channels", query::channels))
            .service(readable("/channels/{channel}", query::channel))
            .service(readable("/channels/{channel}/users", query::users))
            .service(readable("/channels/{channel}/history", history::history))
            .service(web::resource("/channels/{channel}/events").route(web::post().to(legacy::event)))
            .service(readable("/channels/{channel}/stats", legacy::stats))
            .service(terminate()),
    );
    // The Python library leaves the app out of this path; the signed key still names it.
    config.service(terminate());
}

fn terminate() -> actix_web::Resource {
    web::resource("/users/{user_id}/terminate_connections").route(web::post().to(query::terminate))
}
