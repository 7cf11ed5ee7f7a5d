//! The machine by itself: bytes in, events and bytes out.
