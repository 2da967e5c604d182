//! The HTTP API of Pusher Channels. Publishing is matched by hand in [`super::front`]; the rest are routes.

pub mod body;
pub mod idempotency;
pub mod publish;
pub mod query;

use actix_web::web;

pub fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/apps/{app_id}")
            .route("/channels", web::get().to(query::channels))
            .route("/channels/{channel}", web::get().to(query::channel))
            .route("/channels/{channel}/users", web::get().to(query::users))
            .route(
                "/users/{user_id}/terminate_connections",
                web::post().to(query::terminate),
            ),
    );
    // The Python library leaves the app out of this path; the signed key still names it.
    config.route(
        "/users/{user_id}/terminate_connections",
        web::post().to(query::terminate),
    );
}
