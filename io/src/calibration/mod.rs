//! How a data directory's disk likes its durable writes: measured once by the operator, kept beside the data, and used
//! by the logs. [`measure`] runs the real ring, [`choose`] decides, [`Calibration`] is what is stored.

mod choice;
mod measure;
mod store;

pub use choice::{Choice, choose};
pub use measure::{Cell, How, Round, cells, measure};
pub use store::{CALIBRATION_FILE, Calibration, Figure};
