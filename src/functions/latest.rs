//! The value of the latest, or earliest, event: by timestamp, ties by the order of receipt.
//!
//! Arguments: value, timestamp, ingested_at, ordinal. No two events share the last two (every batch
//! has an instant of its own), so the answer does not depend on the layout of the files.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Int64Array, PrimitiveArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, Field, FieldRef, Int64Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::accumulate::accumulate_indices;

use super::single::SingleGroup;

/// Which end of time counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// The greatest place in time.
    Latest,
    /// The least.
    Earliest,
}

/// `latest` and `earliest` as a DataFusion aggregate.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ValueAt {
    end: End,
    signature: Signature,
}

impl ValueAt {
    /// The aggregate for one end.
    pub fn new(end: End) -> Self {
        Self { end, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for ValueAt {
    fn name(&self) -> &str {
        match self.end {
            End::Latest => "latest",
            End::Earliest => "earliest",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [value, _, _, _] = arguments else {
            return exec_err!(
                "{} takes value, timestamp, ingested_at and ordinal, got {} arguments",
                self.name(),
                arguments.len()
            );
        };
        let value = match value {
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Null => DataType::Int64,
            DataType::Int64 | DataType::Decimal128(..) | DataType::Decimal256(..) => value.clone(),
            other => return exec_err!("{} takes exact numbers, got {other}", self.name()),
        };
        let instant = crate::schema::timestamp_type();
        Ok(vec![value, instant.clone(), instant, DataType::Int64])
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field = |name, data_type| {
            Arc::new(Field::new(format_state_name(args.name, name), data_type, true))
        };
        Ok(vec![
            field("value", args.return_type().clone()),
            field("timestamp", DataType::Int64),
            field("ingested_at", DataType::Int64),
            field("ordinal", DataType::Int64),
        ])
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let out = args.return_field.data_type().clone();
        Ok(match out {
            DataType::Int64 => Box::new(ValueAtGroups::<Int64Type>::new(self.end, out)),
            DataType::Decimal128(..) => {
                Box::new(ValueAtGroups::<Decimal128Type>::new(self.end, out))
            }
            DataType::Decimal256(..) => {
                Box::new(ValueAtGroups::<Decimal256Type>::new(self.end, out))
            }
            other => return exec_err!("{} of {other}", self.name()),
        })
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(SingleGroup::new(self.create_groups_accumulator(args)?)))
    }
}

/// Place of an event in time: timestamp, instant of receipt, place in its batch.
type Place = (i64, i64, i64);

struct ValueAtGroups<T: ArrowPrimitiveType> {
    end: End,
    out: DataType,
    values: Vec<T::Native>,
    places: Vec<Option<Place>>,
}

impl<T: ArrowPrimitiveType> ValueAtGroups<T> {
    fn new(end: End, out: DataType) -> Self {
        Self { end, out, values: Vec::new(), places: Vec::new() }
    }

    fn offer(&mut self, group: usize, value: T::Native, place: Place) {
        let wins = match (&self.places[group], self.end) {
            (None, _) => true,
            (Some(held), End::Latest) => place > *held,
            (Some(held), End::Earliest) => place < *held,
        };
        if wins {
            self.values[group] = value;
            self.places[group] = Some(place);
        }
    }

    fn grow(&mut self, groups: usize) {
        self.values.resize(groups, T::default_value());
        self.places.resize(groups, None);
    }

    fn take(&mut self, emit_to: EmitTo) -> (PrimitiveArray<T>, Vec<Option<Place>>) {
        let values = emit_to.take_needed(&mut self.values);
        let places = emit_to.take_needed(&mut self.places);
        let seen: NullBuffer = places.iter().map(Option::is_some).collect();
        let values = PrimitiveArray::<T>::new(values.into(), Some(seen));
        (values.with_data_type(self.out.clone()), places)
    }
}

/// The three place columns as plain integers.
fn places(columns: &[ArrayRef]) -> Result<[Int64Array; 3]> {
    let mut plain = columns.iter().map(|column| {
        let cast = arrow::compute::cast(column, &DataType::Int64)?;
        Ok::<_, datafusion::error::DataFusionError>(cast.as_primitive::<Int64Type>().clone())
    });
    match (plain.next(), plain.next(), plain.next()) {
        (Some(timestamp), Some(ingested_at), Some(ordinal)) => {
            Ok([timestamp?, ingested_at?, ordinal?])
        }
        _ => exec_err!("place in time needs three columns, got {}", columns.len()),
    }
}

impl<T: ArrowPrimitiveType + Send> GroupsAccumulator for ValueAtGroups<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow(total_num_groups);
        let [timestamps, ingested, ordinals] = places(&values[1..])?;
        let value = values[0].as_primitive::<T>();
        for (row, &group) in group_indices.iter().enumerate() {
            let kept = opt_filter.is_none_or(|f| f.is_valid(row) && f.value(row));
            if kept && value.is_valid(row) && timestamps.is_valid(row) {
                let place = (timestamps.value(row), ingested.value(row), ordinals.value(row));
                self.offer(group, value.value(row), place);
            }
        }
        Ok(())
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.update_batch(values, group_indices, None, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(Arc::new(self.take(emit_to).0))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (values, places) = self.take(emit_to);
        let column = |part: fn(&Place) -> i64| {
            let column: Int64Array = places.iter().map(|p| p.as_ref().map(part)).collect();
            Arc::new(column) as ArrayRef
        };
        Ok(vec![Arc::new(values), column(|p| p.0), column(|p| p.1), column(|p| p.2)])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let mut kept = Vec::new();
        let all: Vec<usize> = (0..values[0].len()).collect();
        accumulate_indices(&all, values[0].logical_nulls().as_ref(), opt_filter, |row| {
            kept.push(row);
        });
        let mut rows = Self::new(self.end, self.out.clone());
        rows.grow(all.len());
        let [timestamps, ingested, ordinals] = places(&values[1..])?;
        let value = values[0].as_primitive::<T>();
        for row in kept {
            let place = (timestamps.value(row), ingested.value(row), ordinals.value(row));
            rows.offer(row, value.value(row), place);
        }
        rows.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.values.capacity() * size_of::<T::Native>()
            + self.places.capacity() * size_of::<Option<Place>>()
    }
}
