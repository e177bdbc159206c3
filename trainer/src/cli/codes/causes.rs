//! Owns which code an error has: a closed match for each type of error, so that a new kind of error asks for its code;
//! never touches texts. Errors of texts and data sets are in `data_causes`.

use std::error::Error;
use std::io;

use model_zoo::generate::GenerateError;
use model_zoo::{AdapterError, ParamsError};

use super::super::failure::Exit;
use super::Code;
use super::data_causes::{chat, convert, data, filter, lid, order, prepare, record, removal, source, tokenizer};
use crate::adapter::AdapterFileError;
use crate::bundle::BundleError;
use crate::certificate::CertificateError;
use crate::certificate::envelope::{EnvelopeError, KeyError};
use crate::checkpoint::CheckpointError;
use crate::cluster::ClusterError;
use crate::cluster::place::PlaceError;
use crate::config::ConfigError;
use crate::config::estimate::ThroughputError;
use crate::device::{DeviceChoiceError, DeviceError};
use crate::durable::FileError;
use crate::eval::EvalError;
use crate::gguf::GgufError;
use crate::hub::HubError;
use crate::launch::{LaunchError, TetherError};
use crate::outer::OuterError;
use crate::parity::ParityError;
use crate::preference::reference::ReferenceError;
use crate::run_dir::RunDirError;
use crate::secret_file::SecretFileError;
use crate::selftest::SelftestError;
use crate::session::SessionError;
use crate::step::StepError;
use crate::tensor_file::TensorFileError;
use crate::train::TrainError;
use crate::vocabulary::VocabularyError;

/// The code of an error that ends the program with `exit`.
pub(in super::super) fn of(error: &(dyn Error + 'static), exit: Exit) -> Code {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(code) = known(error) {
            return code;
        }
        at = error.source();
    }
    match exit {
        Exit::Done => Code::Stopped,
        Exit::Failed => Code::WorkFailed,
        Exit::Usage => Code::Usage,
        Exit::Missed => Code::ExpectationMissed,
        Exit::PeerLost => Code::PeerLost,
    }
}

/// The code of an error of a known type.
pub(super) fn known(error: &(dyn Error + 'static)) -> Option<Code> {
    /// The code that the first of these functions whose type it is gives.
    macro_rules! first {
        ($($code:path),* $(,)?) => {
            None$(.or_else(|| error.downcast_ref().map($code)))*
        };
    }
    first![
        config,
        session,
        train,
        cluster,
        checkpoint,
        run_dir,
        file,
        prepare,
        data,
        source,
        tokenizer,
        chat,
        order,
        filter,
        removal,
        convert,
        lid,
        device,
        device_choice,
        hub,
        gguf,
        adapter_file,
        eval,
        generate,
        vocabulary,
        launch,
        tether,
        place,
        outer,
        certificate,
        key,
        bundle,
        parity,
        reference,
        selftest,
        secret,
        tensors,
        params,
        step,
        record,
        throughput,
        io,
    ]
}

pub(super) fn io(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Code::FileNotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Code::NoPermission,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::DiskFull,
        io::ErrorKind::AlreadyExists => Code::ExistsAlready,
        _ => Code::DiskTrouble,
    }
}

fn file(error: &FileError) -> Code {
    io(&error.source)
}

fn secret(_: &SecretFileError) -> Code {
    Code::SecretFile
}

fn config(error: &ConfigError) -> Code {
    match error {
        ConfigError::Unreadable(_) => Code::ConfigUnreadable,
        ConfigError::Syntax(_) => Code::ConfigSyntax,
        ConfigError::UnknownKey(_) => Code::UnknownKey,
        ConfigError::MissingKey(_) => Code::MissingKey,
        ConfigError::WrongType(_) => Code::WrongType,
        ConfigError::Invalid(_) => Code::InvalidValue,
    }
}

fn session(error: &SessionError) -> Code {
    match error {
        SessionError::Config(error) => config(error),
        SessionError::Data(error) => data(error),
        SessionError::Prepare(error) => prepare(error),
        SessionError::Order(error) => order(error),
        SessionError::Device(error) => device(error),
        SessionError::Hub(error) => hub(error),
        SessionError::Adapter(error) => adapter_file(error),
        SessionError::Base(error) => eval(error),
        SessionError::Vocabulary(error) => vocabulary(error),
        SessionError::Model(_) => Code::ModelUnsupported,
        SessionError::RunDir(error) => run_dir(error),
        SessionError::Checkpoint(error) => checkpoint(error),
        SessionError::Cluster(error) => cluster(error),
        SessionError::OtherPlan { .. } => Code::OtherPlan,
        SessionError::OtherDataset(_) => Code::OtherDataset,
        SessionError::NotFresh { .. } => Code::NotFresh,
        SessionError::NoBf16 { .. } => Code::NoBf16,
    }
}

fn train(error: &TrainError) -> Code {
    match error {
        TrainError::Data(error) => data(error),
        TrainError::Step { source, .. } => step(source),
        TrainError::Checkpoint(error) => checkpoint(error),
        TrainError::CannotSave { .. } => Code::CannotSave,
        TrainError::Halted { .. } => Code::Halted,
        TrainError::Thread(_) => Code::Threads,
        TrainError::DataEnded { .. } => Code::Defect,
        TrainError::Cluster(error) => cluster(error),
        TrainError::Outer(error) => outer(error),
        TrainError::Log(error) => run_dir(error),
    }
}

fn step(error: &StepError) -> Code {
    match error {
        StepError::TokenOutOfRange { .. } => Code::DatasetMismatch,
        StepError::PositionOutOfRange { .. } => Code::DocumentTooLong,
        StepError::NoGradient(_) => Code::Defect,
    }
}

fn checkpoint(error: &CheckpointError) -> Code {
    match error {
        CheckpointError::File(error) => file(error),
        CheckpointError::Damaged { .. } => Code::CheckpointDamaged,
        CheckpointError::Mismatch { .. } => Code::CheckpointMismatch,
        CheckpointError::Peer(error) => cluster(error),
        CheckpointError::NoSpace { .. } => Code::DiskFull,
    }
}

fn run_dir(error: &RunDirError) -> Code {
    match error {
        RunDirError::File(error) => file(error),
        RunDirError::Locked { .. } => Code::InUse,
        RunDirError::DamagedLog { .. } => Code::LogDamaged,
    }
}

fn cluster(error: &ClusterError) -> Code {
    match error {
        ClusterError::Lost(_) => Code::PeerLost,
        ClusterError::Refused { .. } => Code::ProcessesRefused,
        ClusterError::Absent { .. } => Code::PeerAbsent,
        ClusterError::Stopped(_) => Code::Stopped,
        ClusterError::Local { .. } => Code::ClusterLocal,
    }
}

fn place(error: &PlaceError) -> Code {
    match error {
        PlaceError::Value { .. } | PlaceError::HalfSet { .. } | PlaceError::Contradiction { .. } => {
            Code::LauncherEnvironment
        }
    }
}

fn launch(error: &LaunchError) -> Code {
    match error {
        LaunchError::Usage { .. } => Code::LaunchUsage,
        LaunchError::System { source, .. } => io(source),
        LaunchError::Token(_) => Code::SecretFile,
        LaunchError::Unkillable { .. } => Code::Unkillable,
    }
}

fn tether(error: &TetherError) -> Code {
    match error {
        TetherError::Orphaned { .. } => Code::PeerLost,
        TetherError::System(error) => io(error),
    }
}

fn outer(error: &OuterError) -> Code {
    match error {
        OuterError::Refused { .. } | OuterError::Local { .. } => Code::SiteRefused,
        OuterError::Unreachable(_) => Code::CoordinatorUnreachable,
        OuterError::Stopped => Code::Stopped,
        OuterError::Damaged { .. } => Code::CoordinatorDamaged,
        OuterError::File(error) => file(error),
        OuterError::Tensors(error) => tensors(error),
        OuterError::Cluster(error) => cluster(error),
    }
}

fn vocabulary(error: &VocabularyError) -> Code {
    match error {
        VocabularyError::Tokenizer(error) => tokenizer(error),
        VocabularyError::Other { .. } | VocabularyError::NotSpelled { .. } => Code::OtherVocabulary,
    }
}

fn device(error: &DeviceError) -> Code {
    match error {
        DeviceError::NotBuilt { .. } => Code::BackendNotBuilt,
        DeviceError::Cuda { .. } => Code::CudaMissing,
        DeviceError::NoSuchDevice { .. } => Code::NoSuchDevice,
        DeviceError::NoAnswer { .. } => Code::DeviceFails,
        DeviceError::ThreadCount { .. } | DeviceError::ThreadsFixed { .. } | DeviceError::ThreadsRefused { .. } => {
            Code::Threads
        }
    }
}

fn device_choice(error: &DeviceChoiceError) -> Code {
    match error {
        DeviceChoiceError::Unknown { .. } | DeviceChoiceError::Index { .. } | DeviceChoiceError::Numbered { .. } => {
            Code::NoSuchDevice
        }
    }
}

fn hub(error: &HubError) -> Code {
    match error {
        HubError::File(error) => file(error),
        HubError::Config { .. } => Code::ModelUnsupported,
        HubError::NoWeights { .. } | HubError::TwoWeights { .. } => Code::NoModel,
        HubError::Json { .. } | HubError::Damaged { .. } | HubError::NotFinite { .. } => Code::WeightsDamaged,
        HubError::Missing { .. } | HubError::Surplus { .. } | HubError::Shape { .. } | HubError::UntiedHead { .. } => {
            Code::WeightsDoNotFit
        }
        HubError::Dtype { .. } | HubError::Overflow { .. } => Code::DoesNotRepresent,
        HubError::Tokenizer { .. } => Code::TokenizerUnreadable,
        HubError::Exists { .. } => Code::ExistsAlready,
        HubError::Layout { .. } => Code::ModelUnsupported,
        HubError::Differs { .. } => Code::ExportDiffers,
        HubError::Params(error) => params(error),
        HubError::Step(error) => step(error),
    }
}

fn gguf(error: &GgufError) -> Code {
    match error {
        GgufError::File(error) => file(error),
        GgufError::Hub(error) => hub(error),
        GgufError::Params(error) => params(error),
        GgufError::Damaged { .. } => Code::WeightsDamaged,
        GgufError::Unsupported { .. } | GgufError::Config { .. } | GgufError::Model { .. } => Code::ModelUnsupported,
        GgufError::Tokenizer { .. } => Code::TokenizerUnreadable,
        GgufError::Overflow { .. } => Code::DoesNotRepresent,
        GgufError::Differs { .. } => Code::ExportDiffers,
    }
}

fn params(error: &ParamsError) -> Code {
    match error {
        ParamsError::Count { .. } | ParamsError::Size { .. } => Code::WeightsDoNotFit,
        ParamsError::Read { .. } => Code::DeviceFails,
    }
}

fn tensors(error: &TensorFileError) -> Code {
    match error {
        TensorFileError::File(error) => file(error),
        TensorFileError::Damaged { .. } => Code::WeightsDamaged,
        TensorFileError::Missing { .. } => Code::WeightsDoNotFit,
        TensorFileError::Dtype { .. } => Code::DoesNotRepresent,
    }
}

fn adapter_file(error: &AdapterFileError) -> Code {
    match error {
        AdapterFileError::Settings { .. } | AdapterFileError::Directory { .. } => Code::AdapterSettings,
        AdapterFileError::Fit(AdapterError::OtherBase { .. }) | AdapterFileError::OtherBase { .. } => Code::OtherBase,
        AdapterFileError::Fit(_) => Code::AdapterSettings,
        AdapterFileError::File(error) => file(error),
        AdapterFileError::Tensors(error) => tensors(error),
        AdapterFileError::Hub(error) => hub(error),
        AdapterFileError::Params(error) => params(error),
        AdapterFileError::NotWhole { .. } => Code::AdapterAlone,
        AdapterFileError::Device { .. } => Code::AdapterSettings,
        AdapterFileError::Differs { .. } => Code::ExportDiffers,
    }
}

fn eval(error: &EvalError) -> Code {
    match error {
        EvalError::NoModel { .. } | EvalError::MistralBase { .. } => Code::NoModel,
        EvalError::NoTokenizer { .. } => Code::NoTokenizer,
        EvalError::Checkpoint(error) => checkpoint(error),
        EvalError::Hub(error) => hub(error),
        EvalError::Adapter(error) => adapter_file(error),
        EvalError::Tokenizer(error) => tokenizer(error),
        EvalError::Chat(error) => chat(error),
        EvalError::Data(error) => data(error),
        EvalError::Order(error) => order(error),
        EvalError::Text(error) => prepare(error),
        EvalError::Records(error) => record(error),
        EvalError::File(error) => file(error),
        EvalError::Step(error) => step(error),
        EvalError::Generate(error) => generate(error),
        EvalError::Task { .. } | EvalError::Question { .. } => Code::TaskFile,
        EvalError::Read { .. } => Code::DeviceFails,
        EvalError::NotFinite => Code::NotFinite,
        EvalError::Stopped => Code::Stopped,
    }
}

fn generate(error: &GenerateError) -> Code {
    match error {
        GenerateError::EmptyPrompt | GenerateError::LongPrompt { .. } | GenerateError::Token { .. } => Code::Prompt,
        GenerateError::Sampling { .. } => Code::Usage,
        GenerateError::NotFinite { .. } => Code::NotFinite,
        GenerateError::Read { .. } => Code::DeviceFails,
    }
}

fn parity(error: &ParityError) -> Code {
    match error {
        ParityError::NotABundle { .. } | ParityError::Reference { .. } => Code::ReferenceBundle,
        ParityError::Adapter(error) => adapter_file(error),
        ParityError::File(error) => file(error),
        ParityError::Hub(error) => hub(error),
        ParityError::Tensors(error) => tensors(error),
        ParityError::Step(error) => step(error),
        ParityError::Params(error) => params(error),
        ParityError::Generate(error) => generate(error),
        ParityError::Tokenizer(error) => tokenizer(error),
        ParityError::Chat(error) => chat(error),
        ParityError::Read { .. } => Code::DeviceFails,
    }
}

fn reference(error: &ReferenceError) -> Code {
    match error {
        ReferenceError::Data(error) => data(error),
        ReferenceError::Step(error) => step(error),
        ReferenceError::Cluster(error) => cluster(error),
        ReferenceError::File(error) => file(error),
        ReferenceError::Stopped => Code::Stopped,
    }
}

fn throughput(error: &ThroughputError) -> Code {
    match error {
        ThroughputError::Unreadable { source, .. } => io(source),
        ThroughputError::NoFigure { .. } => Code::Usage,
    }
}

fn selftest(error: &SelftestError) -> Code {
    match error {
        SelftestError::Interrupted => Code::Stopped,
        SelftestError::Folder(error) => file(error),
    }
}

fn certificate(error: &CertificateError) -> Code {
    match error {
        CertificateError::Key(error) => key(error),
        CertificateError::File(error) => file(error),
        CertificateError::Checkpoint(error) => checkpoint(error),
        CertificateError::NotCertifiable { .. } => Code::NotCertifiable,
        CertificateError::Refused { source, .. } => match source {
            EnvelopeError::Malformed(_) | EnvelopeError::BadSignature | EnvelopeError::OtherKey { .. } => {
                Code::CertificateRefused
            }
        },
        CertificateError::Exists { .. } => Code::ExistsAlready,
    }
}

fn key(error: &KeyError) -> Code {
    match error {
        KeyError::Secret(_) | KeyError::NotAKey { .. } => Code::SigningKey,
        KeyError::File(error) => file(error),
    }
}

fn bundle(error: &BundleError) -> Code {
    match error {
        BundleError::File(error) => file(error),
        BundleError::List(error) => certificate(error),
        BundleError::Wrong { .. } => Code::Usage,
        BundleError::Refused { .. } => Code::BundleRefused,
    }
}
