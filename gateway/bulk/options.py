"""The options of a run, and the job that they make with an input and a model."""

from dataclasses import dataclass, field
from pathlib import Path

from gateway.bulk.content import InputFile
from gateway.bulk.job import BulkJob
from gateway.bulk.row import Columns
from gateway.bulk.source import InputOptions
from gateway.config import LongInput, OutputDtype
from gateway.embedding.embedder import Description
from gateway.embedding.model import Model
from gateway.embedding.prompt import resolve_input_type
from gateway.embedding.quantization import Ranges
from gateway.errors import InvalidValue, OperatorError


@dataclass(frozen=True, slots=True)
class BulkJobModel:
    """The fields of a job that depend on the model."""

    name: str
    fingerprint: str
    dimensions: int
    long_input: str
    quantization: str | None = None


@dataclass(frozen=True, kw_only=True)
class BulkOptions:
    """The options of the command line. `start_seconds` is how long a model may take to be ready; None is for ever."""

    input: Path
    output: Path
    reading: InputOptions = field(default_factory=InputOptions)
    dimensions: int | None = None
    input_type: str | None = None
    long_input: LongInput | None = None
    dtype: OutputDtype = "float"
    in_flight: int = 1
    patience_seconds: float = 300.0
    start_seconds: float | None = None
    overwrite: bool = False
    restart: bool = False
    report: bool = False

    def resolve_input_type(self, about: Description) -> str | None:
        """Returns the loaded model's own name of the prompt. Raises OperatorError, with the names it has, for any other."""
        try:
            return resolve_input_type(self.input_type, about, param="--input-type")
        except InvalidValue as error:
            raise OperatorError(error.message) from None

    def ranges_of(self, model: Model, dimensions: int) -> Ranges | None:
        """Returns the ranges that the loaded model's vectors are quantized by, if any are needed. Raises OperatorError."""
        try:
            return model.ranges_for([self.dtype], dimensions)
        except InvalidValue as error:
            raise OperatorError(error.message.replace("'output_dtype'", "'--dtype'")) from None

    def job(self, file: InputFile, form: str, columns: Columns, *, model: Model) -> BulkJob:
        """Returns the job with the loaded model. Raises OperatorError for more dimensions than it has, or a type without ranges."""
        about = model.embedder.describe()
        dimensions = self.dimensions or about.dimensions
        if dimensions > about.dimensions:
            raise OperatorError(f"--dimensions: the model's vectors have {about.dimensions}")
        ranges = self.ranges_of(model, dimensions)
        long_input = self.long_input or about.long_input
        made = BulkJobModel(model.name, about.fingerprint, dimensions, long_input, ranges.id if ranges is not None else None)
        return self.job_as(made, file, form=form, columns=columns)

    def job_as(self, made: BulkJobModel, file: InputFile, *, form: str, columns: Columns) -> BulkJob:
        """Returns the job with the given fields of the model."""
        return BulkJob(
            file=file,
            format=form,
            column=columns.text,
            id_column=columns.id,
            keep="all" if columns.keep is None else ",".join(columns.keep) or None,
            delimiter=self.reading.delimiter,
            quote=self.reading.quote,
            encoding=self.reading.encoding,
            model=made.name,
            fingerprint=made.fingerprint,
            dimensions=made.dimensions,
            input_type=self.input_type,
            long_input=made.long_input,
            dtype=self.dtype,
            quantization=made.quantization,
        )
