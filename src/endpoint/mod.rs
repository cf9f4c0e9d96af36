//! What a URL speaks. An endpoint never calls another endpoint.
