//! Owns the values of Arrow arrays as text and as JSON; never reads a file.

use std::borrow::Cow;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Decimal128Type, Decimal256Type, DurationMicrosecondType, DurationMillisecondType,
    DurationNanosecondType, DurationSecondType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use serde_json::{Map, Value as Json};

/// Nesting of a value at most; what lies deeper is null.
const MAX_DEPTH: usize = 16;

/// A column of strings.
pub(super) struct TextColumn<'a> {
    array: &'a dyn Array,
    /// Structs around it, whose rows may be null.
    around: Vec<&'a dyn Array>,
}

impl<'a> TextColumn<'a> {
    /// Whether a column of this type holds strings.
    pub fn can_read(kind: &DataType) -> bool {
        match kind {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => true,
            DataType::Dictionary(_, values) => TextColumn::can_read(values),
            _ => false,
        }
    }

    /// The column at a path of indices.
    pub fn at(batch: &'a RecordBatch, path: &[usize]) -> Option<TextColumn<'a>> {
        let (&first, rest) = path.split_first()?;
        let mut array: &dyn Array = batch.columns().get(first)?.as_ref();
        let mut around = Vec::new();
        for &index in rest {
            around.push(array);
            array = array.as_struct_opt()?.columns().get(index)?.as_ref();
        }
        Some(TextColumn { array, around })
    }

    /// The value of a row, unless it is null.
    pub fn get(&self, row: usize) -> Option<Cow<'a, str>> {
        if self.around.iter().any(|array| array.is_null(row)) {
            return None;
        }
        text(self.array, row)
    }
}

fn text(array: &dyn Array, row: usize) -> Option<Cow<'_, str>> {
    if row >= array.len() || array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::Utf8 => Some(Cow::Borrowed(array.as_string::<i32>().value(row))),
        DataType::LargeUtf8 => Some(Cow::Borrowed(array.as_string::<i64>().value(row))),
        DataType::Utf8View => Some(Cow::Borrowed(array.as_string_view().value(row))),
        DataType::Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary();
            text(dictionary.values().as_ref(), key(dictionary.keys(), row)?)
        }
        kind if kind.is_integer() => match value(array, row, 0) {
            Json::Number(number) => Some(Cow::Owned(number.to_string())),
            _ => None,
        },
        _ => None,
    }
}

/// A row's place among the values of a dictionary.
fn key(keys: &dyn Array, row: usize) -> Option<usize> {
    value(keys, row, 0).as_u64().and_then(|key| usize::try_from(key).ok())
}

/// A row as a JSON object.
pub(super) fn object(batch: &RecordBatch, row: usize) -> String {
    let schema = batch.schema_ref();
    let fields = schema.fields().iter().zip(batch.columns());
    let object: Map<String, Json> =
        fields.map(|(field, column)| (field.name().clone(), value(column.as_ref(), row, 0))).collect();
    Json::Object(object).to_string()
}

/// A value as JSON; binary data that is not text, and types that have no place in a corpus, are null.
fn value(array: &dyn Array, row: usize, depth: usize) -> Json {
    if depth > MAX_DEPTH || row >= array.len() || array.is_null(row) {
        return Json::Null;
    }
    let list = |items: &dyn Array| Json::Array((0..items.len()).map(|i| value(items, i, depth + 1)).collect());
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => text(array, row).map_or(Json::Null, Json::from),
        DataType::Binary => of_bytes(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => of_bytes(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => of_bytes(array.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => of_bytes(array.as_fixed_size_binary().value(row)),
        DataType::List(_) => list(array.as_list::<i32>().value(row).as_ref()),
        DataType::LargeList(_) => list(array.as_list::<i64>().value(row).as_ref()),
        DataType::ListView(_) => list(array.as_list_view::<i32>().value(row).as_ref()),
        DataType::LargeListView(_) => list(array.as_list_view::<i64>().value(row).as_ref()),
        DataType::FixedSizeList(_, _) => list(array.as_fixed_size_list().value(row).as_ref()),
        DataType::Map(_, _) => list(&array.as_map().value(row)),
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(array.as_struct().columns());
            let items = columns.map(|(field, column)| (field.name().clone(), value(column.as_ref(), row, depth + 1)));
            Json::Object(items.collect())
        }
        DataType::Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary();
            let key = key(dictionary.keys(), row);
            key.map_or(Json::Null, |key| value(dictionary.values().as_ref(), key, depth + 1))
        }
        kind => scalar(array, kind, row),
    }
}

fn of_bytes(bytes: &[u8]) -> Json {
    std::str::from_utf8(bytes).map_or(Json::Null, Json::from)
}

macro_rules! number {
    ($array:expr, $row:expr, $kind:ty) => {
        $array.as_primitive::<$kind>().value($row).into()
    };
}

macro_rules! moment {
    ($array:expr, $row:expr, $kind:ty) => {
        $array.as_primitive::<$kind>().value_as_datetime($row).map_or(Json::Null, |time| time.to_string().into())
    };
}

fn scalar(array: &dyn Array, kind: &DataType, row: usize) -> Json {
    match kind {
        DataType::Int8 => number!(array, row, Int8Type),
        DataType::Int16 => number!(array, row, Int16Type),
        DataType::Int32 => number!(array, row, Int32Type),
        DataType::Int64 => number!(array, row, Int64Type),
        DataType::UInt8 => number!(array, row, UInt8Type),
        DataType::UInt16 => number!(array, row, UInt16Type),
        DataType::UInt32 => number!(array, row, UInt32Type),
        DataType::UInt64 => number!(array, row, UInt64Type),
        DataType::Float16 => f32::from(array.as_primitive::<Float16Type>().value(row)).into(),
        DataType::Float32 => number!(array, row, Float32Type),
        DataType::Float64 => number!(array, row, Float64Type),
        DataType::Decimal128(_, _) => array.as_primitive::<Decimal128Type>().value_as_string(row).into(),
        DataType::Decimal256(_, _) => array.as_primitive::<Decimal256Type>().value_as_string(row).into(),
        DataType::Date32 => {
            let date = array.as_primitive::<Date32Type>().value_as_date(row);
            date.map_or(Json::Null, |date| date.to_string().into())
        }
        DataType::Date64 => moment!(array, row, Date64Type),
        DataType::Timestamp(TimeUnit::Second, _) => moment!(array, row, TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => moment!(array, row, TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => moment!(array, row, TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => moment!(array, row, TimestampNanosecondType),
        DataType::Time32(TimeUnit::Second) => number!(array, row, Time32SecondType),
        DataType::Time32(_) => number!(array, row, Time32MillisecondType),
        DataType::Time64(TimeUnit::Microsecond) => number!(array, row, Time64MicrosecondType),
        DataType::Time64(_) => number!(array, row, Time64NanosecondType),
        DataType::Duration(TimeUnit::Second) => number!(array, row, DurationSecondType),
        DataType::Duration(TimeUnit::Millisecond) => number!(array, row, DurationMillisecondType),
        DataType::Duration(TimeUnit::Microsecond) => number!(array, row, DurationMicrosecondType),
        DataType::Duration(TimeUnit::Nanosecond) => number!(array, row, DurationNanosecondType),
        _ => Json::Null,
    }
}
