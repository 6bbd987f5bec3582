//! Quorate on tokio
