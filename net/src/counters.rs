//! What the connections of one shard have seen since the start, for `status`.

use gristmill_wire::FrameError;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Counters of one shard's connections. They only rise.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Name and value of each.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($text, self.$name)),*].into_iter()
            }
        }
    };
}

counters! {
    /// Connections accepted.
    accepted = "net_connections_accepted";
    /// Connections that have ended, whoever ended them.
    closed = "net_connections_closed";
    /// Bytes received.
    bytes_in = "net_bytes_in";
    /// Bytes handed to sockets.
    bytes_out = "net_bytes_out";
    /// Frames taken.
    frames = "net_frames";
    /// Operations taken, refused ones included.
    operations = "net_operations";
    /// Operations refused before they reached the shard: malformed, unknown, too large, without hello.
    refused = "net_operations_refused";
    /// Connections closed for first bytes of another protocol.
    bad_magic = "net_bad_frames_magic";
    /// Connections closed for a frame version that is not known.
    bad_version = "net_bad_frames_version";
    /// Connections closed for a frame of the wrong kind.
    bad_kind = "net_bad_frames_kind";
    /// Connections closed for unknown flags.
    bad_flags = "net_bad_frames_flags";
    /// Connections closed for a frame over the limit.
    bad_length = "net_bad_frames_too_long";
    /// Connections closed for a wrong checksum.
    bad_checksum = "net_bad_frames_checksum";
    /// Connections closed for a frame whose list of operations is out of step.
    bad_list = "net_bad_frames_list";
    /// Connections that ended inside a frame.
    cut_frames = "net_bad_frames_cut";
    /// Connections closed because a frame, or hello, did not come in time.
    too_slow = "net_closed_too_slow";
    /// Reads refused because too many results wait for their client.
    unread_refused = "net_reads_refused_unread";
    /// Connections closed because their client does not take results.
    not_reading = "net_closed_not_reading";
    /// Connections closed because those of the shard together hold too much.
    no_memory = "net_closed_no_memory";
    /// Connections closed at once because the server was stopping.
    stopping = "net_closed_stopping";
}

impl Counters {
    /// Counts a frame that is none.
    pub fn count_bad_frame(&mut self, error: &FrameError) {
        let counter = match error {
            FrameError::Magic(_) => &mut self.bad_magic,
            FrameError::Version(_) => &mut self.bad_version,
            FrameError::Kind { .. } => &mut self.bad_kind,
            FrameError::Flags(_) => &mut self.bad_flags,
            FrameError::TooLong { .. } => &mut self.bad_length,
            FrameError::Checksum { .. } => &mut self.bad_checksum,
        };
        *counter += 1;
    }
}
