//! `GET /` and `GET /page/…`: the files of the built-in page.

use axum::extract::Request;
use axum::response::Response;

use crate::http::error::HttpError;
use crate::http::page;

/// The file that the path names.
pub(crate) async fn show(request: Request) -> Result<Response, HttpError> {
    let path = request.uri().path();
    let found = page::file(path).map(page::File::response);
    found.ok_or_else(|| HttpError::NotFound {
        method: request.method().to_string(),
        path: path.to_owned(),
    })
}
