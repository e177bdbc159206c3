//! Owns which code an error of texts, data sets and tokenizers has; never touches the rest, which is in `causes`.

use std::error::Error;
use std::io as std_io;

use data_pipeline::chat::RecordError as ChatRecordError;
use data_pipeline::convert::ConvertError;
use data_pipeline::decontaminate::BenchmarkError;
use data_pipeline::filter::FilterError;
use data_pipeline::lid::LidError;
use data_pipeline::near::DedupError;
use data_pipeline::opt_out::OptOutError;
use data_pipeline::order::OrderError;
use data_pipeline::prepare::PrepareError;
use data_pipeline::records::RecordError;
use data_pipeline::removal::RemovalError;
use data_pipeline::repair::RepairError;
use data_pipeline::source::SourceError;
use data_pipeline::tokenizer::TokenizerError;
use data_pipeline::tokenizer::chat::ChatError;
use data_pipeline::{DataError, filters};

use super::Code;
use super::causes::{io, known};

pub(super) fn prepare(error: &PrepareError) -> Code {
    match error {
        PrepareError::Config(_) => Code::InvalidValue,
        PrepareError::Source(error) => source(error),
        PrepareError::OptOut(error) => opt_out(error),
        PrepareError::Tokenizer(error) => tokenizer(error),
        PrepareError::Data(error) => data(error),
        PrepareError::Stats(_) => Code::DatasetDamaged,
        PrepareError::NonCommercial { .. } | PrepareError::NoLicencesAllowed { .. } => Code::Licence,
        PrepareError::Record { problem, .. } => chat_record(problem),
        PrepareError::NoTemplate { .. } => Code::ChatTemplate,
        PrepareError::Stage { .. } => Code::StageSetting,
        PrepareError::Gates { .. } => Code::TokenizerGates,
        PrepareError::At { error, .. } => prepare(error),
        PrepareError::Dedup(error) => dedup(error),
        PrepareError::Changed { .. } | PrepareError::InputChanged { .. } => Code::InputChanged,
        PrepareError::Template(error) => chat(error),
        PrepareError::NothingLeft { .. } => Code::NothingLeft,
        PrepareError::TooManyComponents { .. } => Code::TooManyStreams,
        PrepareError::OutputTaken { .. }
        | PrepareError::OutputIsFile { .. }
        | PrepareError::OutputInInput { .. }
        | PrepareError::OutputDiffers { .. } => Code::OutputFolder,
        PrepareError::OutputRefused { source, .. } | PrepareError::Io { source, .. } => io(source),
        PrepareError::Busy { .. } => Code::InUse,
        PrepareError::Unreconciled { .. } => Code::Defect,
        PrepareError::Interrupted { .. } => Code::Stopped,
    }
}

fn chat_record(_: &ChatRecordError) -> Code {
    Code::Record
}

fn opt_out(error: &OptOutError) -> Code {
    match error {
        OptOutError::Io { source, .. } => io(source),
        OptOutError::Line { .. } => Code::Record,
    }
}

fn dedup(error: &DedupError) -> Code {
    match error {
        DedupError::Scratch { source, .. } => io(source),
        DedupError::TooMany => Code::StageSetting,
        DedupError::Stopped => Code::Stopped,
    }
}

pub(super) fn source(error: &SourceError) -> Code {
    match error {
        SourceError::NotFound { .. } | SourceError::BadGlob { .. } | SourceError::NoInput { .. } => Code::NoInput,
        SourceError::NotAFile { .. } => Code::NoInput,
        SourceError::UnknownFormat { .. } | SourceError::Encoding { .. } => Code::UnknownFormat,
        SourceError::Io { source, .. } => io(source),
        SourceError::Damaged { .. } | SourceError::Bomb { .. } | SourceError::WindowTooLarge { .. } => {
            Code::SourceDamaged
        }
        SourceError::TextNeedsDefault { .. }
        | SourceError::NoChats { .. }
        | SourceError::MissingColumn { .. }
        | SourceError::ColumnType { .. } => Code::Columns,
    }
}

pub(super) fn data(error: &DataError) -> Code {
    match error {
        DataError::Io { source, .. } => io(source),
        DataError::NotADataset { .. } => Code::NotADataset,
        DataError::Version { .. } => Code::DatasetVersion,
        DataError::Manifest { .. }
        | DataError::Missing { .. }
        | DataError::Size { .. }
        | DataError::Digest { .. }
        | DataError::Content { .. }
        | DataError::TokenOutOfRange { .. }
        | DataError::RepeatedGroup { .. } => Code::DatasetDamaged,
        DataError::WrongTokenizer { .. } | DataError::OtherKind { .. } | DataError::Vocabulary { .. } => {
            Code::DatasetMismatch
        }
        DataError::OutOfRange { .. } => Code::Usage,
        DataError::Several(errors) => errors.first().map_or(Code::DatasetDamaged, data),
        DataError::Tokenizer(error) => tokenizer(error),
        DataError::NoEndOfText { .. } => Code::SpecialToken,
        DataError::DocumentTooLong { .. } | DataError::TooLong { .. } => Code::DocumentTooLong,
        DataError::Sample { .. } => Code::Record,
        DataError::Documents(error) => known(error.as_ref()).unwrap_or(Code::WorkFailed),
        DataError::Stopped => Code::Stopped,
    }
}

pub(super) fn order(error: &OrderError) -> Code {
    match error {
        OrderError::Number { .. } => Code::InvalidValue,
        OrderError::UnknownWeight { .. } | OrderError::UnknownQuota { .. } => Code::MixtureName,
        OrderError::Stages { .. } => Code::InvalidValue,
        OrderError::OutOfRows { .. }
        | OrderError::Contradiction { .. }
        | OrderError::NothingLeft
        | OrderError::TooFewRows { .. } => Code::MixtureTooSmall,
    }
}

pub(super) fn filter(error: &FilterError) -> Code {
    match error {
        FilterError::Source(error) => source(error),
        FilterError::NothingReadable { .. } => Code::NothingLeft,
        FilterError::Io { source, .. } | FilterError::Out { source, .. } => io(source),
        FilterError::Stage(error) => stage(error.as_ref()).unwrap_or(Code::StageSetting),
        FilterError::Stopped => Code::Stopped,
    }
}

/// A stage of `jazari data` that reads files of its own.
fn stage(error: &(dyn Error + 'static)) -> Option<Code> {
    let repair = error.downcast_ref().map(|error: &RepairError| match error {
        RepairError::Read { source, .. } => io(source),
        RepairError::List { .. } => Code::StageSetting,
    });
    let filters = error.downcast_ref().map(|error: &filters::FilterError| match error {
        filters::FilterError::Config(_) | filters::FilterError::WordList { .. } => Code::StageSetting,
    });
    let benchmark = error.downcast_ref().map(|error: &BenchmarkError| match error {
        BenchmarkError::Io { source, .. } => io(source),
        BenchmarkError::Record(error) => record(error),
        BenchmarkError::Empty { .. } | BenchmarkError::Missing { .. } | BenchmarkError::TooMany { .. } => {
            Code::StageSetting
        }
    });
    repair.or(filters).or(benchmark).or_else(|| known(error))
}

pub(super) fn removal(error: &RemovalError) -> Code {
    match error {
        RemovalError::Data(error) => data(error),
        RemovalError::Stats(_) => Code::DatasetDamaged,
        RemovalError::EmptySelection
        | RemovalError::Nothing { .. }
        | RemovalError::Everything { .. }
        | RemovalError::NothingToLearn { .. } => Code::RemovalRefused,
        RemovalError::Busy { .. } => Code::InUse,
    }
}

pub(super) fn convert(error: &ConvertError) -> Code {
    match error {
        ConvertError::Data(error) => data(error),
        ConvertError::Tokenizer(error) => tokenizer(error),
        ConvertError::Taken { .. } => Code::ExistsAlready,
        ConvertError::Nothing { .. } => Code::NothingLeft,
    }
}

pub(super) fn lid(error: &LidError) -> Code {
    match error {
        LidError::Read { source, .. } => io(source),
        LidError::NotAModel { .. } | LidError::Damaged { .. } => Code::SourceDamaged,
        LidError::Training { .. } | LidError::Config { .. } => Code::StageSetting,
    }
}

pub(super) fn record(error: &RecordError) -> Code {
    match error {
        RecordError::Io { source, .. } => io(source),
        RecordError::TooLarge { .. } | RecordError::Malformed { .. } | RecordError::Format { .. } => Code::Record,
    }
}

pub(super) fn tokenizer(error: &TokenizerError) -> Code {
    match error {
        TokenizerError::Io { source, .. } if source.kind() == std_io::ErrorKind::NotFound => Code::NoTokenizer,
        TokenizerError::Io { source, .. } => io(source),
        TokenizerError::TooLarge { .. }
        | TokenizerError::Malformed { .. }
        | TokenizerError::Unsupported { .. }
        | TokenizerError::NotExtensible { .. } => Code::TokenizerUnreadable,
        TokenizerError::UnknownSpecial { .. } => Code::SpecialToken,
        TokenizerError::Failed { .. } | TokenizerError::UnknownId { .. } => Code::TokenizerFailed,
        TokenizerError::Setting { .. } => Code::InvalidValue,
        TokenizerError::NoText => Code::NoInput,
        TokenizerError::Gates { .. } => Code::TokenizerGates,
        TokenizerError::Stopped => Code::Stopped,
    }
}

pub(super) fn chat(error: &ChatError) -> Code {
    match error {
        ChatError::File(error) => tokenizer(error),
        ChatError::TooLarge { .. }
        | ChatError::Refused { .. }
        | ChatError::Limit { .. }
        | ChatError::Template { .. }
        | ChatError::NoSpan { .. }
        | ChatError::Marks { .. }
        | ChatError::Unknown { .. } => Code::ChatTemplate,
    }
}
