//! Owns the words of the CUDA driver that the engine uses: context, stream, events, the identity of a GPU; never
//! touches tensors.

use std::ffi::c_int;

use cudarc::driver::result as cu;
use cudarc::driver::sys as cusys;

use super::symbols::Stream;

/// The first driver with events over a whole context: CUDA 12.5 (555), as it writes it.
const OLDEST_DRIVER: c_int = 12_050;

/// A GPU, whose driver can do what the engine needs.
pub(super) fn gpu(ordinal: usize) -> Result<cusys::CUdevice, String> {
    cu::init().map_err(|e| driver("cuInit", &e))?;
    let mut version = 0;
    // SAFETY: `version` is a valid place for one int.
    unsafe { cusys::cuDriverGetVersion(&raw mut version) }.result().map_err(|e| driver("cuDriverGetVersion", &e))?;
    if version < OLDEST_DRIVER {
        return Err(format!(
            "the driver speaks CUDA {}.{}, and ordering collectives with kernels needs 12.5: update it to 555 or newer",
            version / 1000,
            version % 1000 / 10
        ));
    }
    let ordinal = c_int::try_from(ordinal).map_err(|_| format!("{ordinal} is no number of a GPU"))?;
    cu::device::get(ordinal).map_err(|e| driver("cuDeviceGet", &e))
}

/// What tells a GPU, or a part of a divided one, from all others.
pub(super) fn identity(gpu: cusys::CUdevice) -> Result<String, String> {
    let uuid = cu::device::get_uuid(gpu).map_err(|e| driver("cuDeviceGetUuid", &e))?;
    Ok(uuid.bytes.iter().map(|byte| format!("{:02x}", *byte as u8)).collect())
}

/// What a call of the driver said.
pub(super) fn driver(call: &str, error: &cu::DriverError) -> String {
    format!("{call}: {error}")
}

/// The context that CubeCL computes in as well.
#[derive(Clone, Copy)]
pub(super) struct Context(cusys::CUcontext);

// SAFETY: a context may be made current, and named, on any thread. The primary one is retained for good.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Retains the primary context of a GPU, the one CubeCL uses.
    pub(super) fn primary(gpu: cusys::CUdevice) -> Result<Self, String> {
        // SAFETY: `gpu` comes from the driver.
        unsafe { cu::primary_ctx::retain(gpu) }.map(Self).map_err(|e| driver("cuDevicePrimaryCtxRetain", &e))
    }

    /// Calls of this thread mean this GPU.
    pub(super) fn set_current(self) -> Result<(), String> {
        // SAFETY: the context is retained and never released.
        unsafe { cu::ctx::set_current(self.0) }.map_err(|e| driver("cuCtxSetCurrent", &e))
    }

    /// Records all work of the context so far.
    pub(super) fn record(self, event: &Event) -> Result<(), String> {
        // SAFETY: context and event live, and the event was made in this context.
        unsafe { cusys::cuCtxRecordEvent(self.0, event.0) }.result().map_err(|e| driver("cuCtxRecordEvent", &e))
    }

    /// Puts all later work of the context behind an event.
    pub(super) fn wait(self, event: &Event) -> Result<(), String> {
        // SAFETY: as in `record`.
        unsafe { cusys::cuCtxWaitEvent(self.0, event.0) }.result().map_err(|e| driver("cuCtxWaitEvent", &e))
    }
}

/// A point in the work of a device.
pub(super) struct Event(cusys::CUevent);

// SAFETY: an event is a name for a point in the driver's queues, which any thread may ask about.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    pub(super) fn new() -> Result<Self, String> {
        let made = cu::event::create(cusys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        made.map(Self).map_err(|e| driver("cuEventCreate", &e))
    }

    /// Whether the work before it is done; an error is a fault of that work.
    pub(super) fn is_done(&self) -> Result<bool, String> {
        // SAFETY: the event lives.
        match unsafe { cu::event::query(self.0) } {
            Ok(()) => Ok(true),
            Err(cu::DriverError(cusys::CUresult::CUDA_ERROR_NOT_READY)) => Ok(false),
            Err(error) => Err(driver("a fault on the GPU", &error)),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: this is its only owner; the driver keeps what still waits for it.
        let _ = unsafe { cu::event::destroy(self.0) };
    }
}

/// The stream on which collectives run, one after the other.
pub(super) struct Lane(cusys::CUstream);

// SAFETY: a stream is a name for a queue of the driver, which any thread may use.
unsafe impl Send for Lane {}
// SAFETY: as above.
unsafe impl Sync for Lane {}

impl Lane {
    /// A stream that does not wait for the legacy stream; the context must be current.
    pub(super) fn new() -> Result<Self, String> {
        cu::stream::create(cu::stream::StreamKind::NonBlocking).map(Self).map_err(|e| driver("cuStreamCreate", &e))
    }

    /// Puts later work of the stream behind an event.
    pub(super) fn wait(&self, event: &Event) -> Result<(), String> {
        let flags = cusys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: stream and event live and belong to one context.
        unsafe { cu::stream::wait_event(self.0, event.0, flags) }.map_err(|e| driver("cuStreamWaitEvent", &e))
    }

    /// Records the stream's work so far.
    pub(super) fn record(&self, event: &Event) -> Result<(), String> {
        // SAFETY: stream and event live and belong to one context.
        unsafe { cu::event::record(event.0, self.0) }.map_err(|e| driver("cuEventRecord", &e))
    }

    /// The stream as NCCL takes it.
    pub(super) fn raw(&self) -> Stream {
        self.0.cast()
    }
}
