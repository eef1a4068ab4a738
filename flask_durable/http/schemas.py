"""Marshmallow schemas: what queries and bodies may hold, and how the documents that are answered look.

The request schemas parse; the document schemas only describe, since http/documents.py makes the documents. All names begin with ``Durable``:
they may share an OpenAPI document with those of the host.
"""

from __future__ import annotations

from typing import Any

from marshmallow import EXCLUDE, INCLUDE, RAISE, Schema, fields, validate

from flask_durable.core.ids import MAX_ID_LENGTH
from flask_durable.core.status import RuntimeStatus
from flask_durable.core.tags import MAX_TAG_LENGTH, MAX_TAGS
from flask_durable.http.fields import AnyJson, BodyFlag, Moment, QueryFlag, QuerySeconds, QueryTags, Statuses, Text
from flask_durable.queries import MAX_PAGE_SIZE
from flask_durable.storage.interface import IfExists, Order

MAX_VERSION_LENGTH = 100
STATUS_NAMES = [status.value for status in RuntimeStatus]

# What core/ids.py and parsing.py check, said so that readers of the OpenAPI document know it beforehand
_CONTROLS = r"\u0000-\u001f\u007f-\u009f"
TEXT_PATTERN = f"^[^{_CONTROLS}]*$"
ID_PATTERN = rf"^[^@\s/\\#?{_CONTROLS}]([^/\\#?{_CONTROLS}]*[^\s/\\#?{_CONTROLS}])?$"
NAME_PATTERN = rf"^(?!@)[^/\\#?{_CONTROLS}]*[^\s/\\#?{_CONTROLS}][^/\\#?{_CONTROLS}]*$"


def _about(text: str, **more: Any) -> dict[str, Any]:
    return {"description": text, **more}


def _text(text: str, **more: Any) -> dict[str, Any]:
    return _about(text, pattern=TEXT_PATTERN, **more)


class _Query(Schema):
    """Values of a query; unknown names are ignored, as Azure's ``taskHub`` and ``connection`` must be."""

    class Meta:
        """Ignore unknown names."""

        unknown = EXCLUDE


class _Body(Schema):
    """A body that is an object; an unknown key is an error, since it would be lost without a word."""

    class Meta:
        """Refuse unknown keys."""

        unknown = RAISE


class _Document(Schema):
    """An answer; further fields may come with later versions."""

    class Meta:
        """Allow for more."""

        unknown = INCLUDE


# ---------------------------------------------------------------- queries
# Optional values have no `example`: Swagger UI would fill it in, and a list would be filtered, a start would wait


class DurableStartQuery(_Query):
    """Query of a start."""

    timeout = QuerySeconds(
        metadata=_about(
            "Wait so many seconds for the end (at most 230) and answer with the output; needs `pollingInterval` too, as in `timeout=10&pollingInterval=1`",
            minimum=0,
        )
    )
    polling_interval = QuerySeconds(
        data_key="pollingInterval",
        metadata=_about("Part of Azure's waiting pair, not more than `timeout`; the server notices the end by itself", minimum=0),
    )
    fails_as_500 = QueryFlag(
        data_key="returnInternalServerErrorOnFailure", load_default=False, metadata=_about("When waiting: answer 500 if the orchestration failed")
    )


class DurableFilterQuery(_Query):
    """Which instances are meant."""

    created_from = Moment(data_key="createdTimeFrom", metadata=_about("Created at this moment or later, as `2026-01-31T12:00:00Z`"))
    created_to = Moment(data_key="createdTimeTo", metadata=_about("Created at this moment or earlier"))
    statuses = Statuses(
        data_key="runtimeStatus",
        load_default=tuple,
        metadata=_about("One of these statuses, in any case; repeat it or separate with commas", items={"type": "string", "enum": STATUS_NAMES}),
    )
    id_prefix = Text(data_key="instanceIdPrefix", metadata=_text("The id begins with this"))
    name = Text(metadata=_text("Name of the orchestrator"))
    parent_instance_id = Text(data_key="parentInstanceId", metadata=_text("Children of this instance"))
    tags = QueryTags(
        data_key="tag",
        load_default=dict,
        metadata=_about(
            "Has this tag, written `key:value`; repeat it to ask for several",
            items={"type": "string", "pattern": f"^[^:{_CONTROLS}]+:[^{_CONTROLS}]*$"},
        ),
    )
    version = Text(metadata=_text("Has this version"))
    has_version = QueryFlag(data_key="hasVersion", metadata=_about("Only instances that have a version, or with false only those that have none"))
    completed_from = Moment(data_key="completedTimeFrom", metadata=_about("Ended at this moment or later"))
    completed_to = Moment(data_key="completedTimeTo", metadata=_about("Ended at this moment or earlier"))
    roots_only = QueryFlag(
        data_key="rootsOnly", load_default=False, metadata=_about("Leave out sub-orchestrations: only what was started from outside", default=False)
    )


class DurableListQuery(DurableFilterQuery):
    """Query of a list."""

    is_parked = QueryFlag(data_key="parked", metadata=_about("Only instances that are parked, or with false only those that are not"))

    order = fields.Enum(
        Order,
        by_value=fields.String,
        data_key="sort",
        load_default=Order.NEWEST_FIRST,
        metadata=_about(
            "`newest` or `oldest` first, by creation time and then id; `firstCompleted` or `lastCompleted` first: only what has ended, by that time"
        ),
    )
    top = fields.Integer(load_default=100, validate=validate.Range(1, MAX_PAGE_SIZE), metadata=_about("Instances on a page", default=100))
    token = Text(
        data_key="continuationToken", metadata=_text("Token of the page before, for those who cannot send the header `x-ms-continuation-token`")
    )
    show_input = QueryFlag(data_key="showInput", load_default=True, metadata=_about("Include inputs", default=True))
    show_output = QueryFlag(data_key="showOutput", load_default=True, metadata=_about("Include outputs", default=True))
    includes_total = QueryFlag(
        data_key="includeTotal",
        load_default=False,
        metadata=_about("Count all that the filter means; the header `x-total-count` says it", default=False),
    )


class DurablePurgeQuery(DurableFilterQuery):
    """Query of a purge by filter; a misspelt filter must not widen it."""

    class Meta:
        """Refuse unknown names."""

        unknown = RAISE

    created_from = Moment(
        data_key="createdTimeFrom", required=True, metadata=_about("Created at this moment or later", example="2026-01-01T00:00:00Z")
    )
    recursive = QueryFlag(load_default=False, metadata=_about("Purge their ended sub-orchestrations too", default=False))
    timeout = QuerySeconds(metadata=_about("Stop after so many seconds; another call goes on with what is left", minimum=0))
    task_hub = fields.String(data_key="taskHub", metadata=_about("Ignored; Azure's clients send it"))
    connection = fields.String(metadata=_about("Ignored; Azure's clients send it"))
    system_key = fields.String(data_key="code", metadata=_about("Ignored; Azure's clients send it"))


class DurableVersionsQuery(_Query):
    """Query of the report of versions."""

    name = Text(metadata=_text("Name of the orchestrator"))


class DurableStatusQuery(_Query):
    """Query of a status."""

    show_input = QueryFlag(data_key="showInput", load_default=True, metadata=_about("Include the input", default=True))
    show_history = QueryFlag(data_key="showHistory", load_default=False, metadata=_about("Include the digest of the history", default=False))
    show_history_output = QueryFlag(
        data_key="showHistoryOutput", load_default=False, metadata=_about("Include results and output in that digest", default=False)
    )
    fails_as_500 = QueryFlag(
        data_key="returnInternalServerErrorOnFailure", load_default=False, metadata=_about("Answer 500 if the orchestration failed", default=False)
    )
    polls = QueryFlag(
        data_key="async",
        load_default=False,
        metadata=_about("Answer 202 with `Location` and `Retry-After` while it has not ended (the asynchronous polling pattern)", default=False),
    )


class DurableHistoryQuery(_Query):
    """Query of a history."""

    top = fields.Integer(
        load_default=MAX_PAGE_SIZE, validate=validate.Range(1, MAX_PAGE_SIZE), metadata=_about("Events on a page", default=MAX_PAGE_SIZE)
    )
    token = Text(
        data_key="continuationToken",
        metadata=_about("Sequence number of the last event seen; also taken from the header `x-ms-continuation-token`", pattern="^[0-9]{0,15}$"),
    )


class DurableReasonQuery(_Query):
    """Query of what takes a reason."""

    reason = fields.String(metadata=_about("Why; kept in the history"))


class DurableHoldQuery(DurableReasonQuery):
    """Query of suspend and resume."""

    recursive = QueryFlag(metadata=_about("Its sub-orchestrations too", default=False))


class DurableTerminateQuery(DurableReasonQuery):
    """Query of terminate."""

    recursive = QueryFlag(metadata=_about("Terminate its open sub-orchestrations too", default=True))


class DurableRestartQuery(_Query):
    """Query of restart."""

    new_instance_id = QueryFlag(data_key="restartWithNewInstanceId", metadata=_about("False runs it again under the same id", default=True))


class DurablePurgeOneQuery(_Query):
    """Query of the purge of one instance."""

    recursive = QueryFlag(load_default=False, metadata=_about("Purge its ended sub-orchestrations too", default=False))


# ---------------------------------------------------------------- bodies


class DurableStart(_Body):
    """Body of a start; no body means no input."""

    input = AnyJson(metadata=_about("Any JSON value, handed to the orchestrator", example={"orderId": "123"}))
    instance_id = Text(
        data_key="instanceId",
        allow_none=True,
        metadata=_about(
            "An id of your own: 1 to 100 characters without / \\ # ? and control characters, not beginning with @; otherwise one is made",
            pattern=ID_PATTERN,
            maxLength=MAX_ID_LENGTH,
        ),
    )
    version = Text(allow_none=True, validate=validate.Length(1, MAX_VERSION_LENGTH), metadata=_text("Version of the instance"))
    tags = fields.Dict(
        keys=Text(),
        values=Text(validate=validate.Length(max=MAX_TAG_LENGTH), metadata={"pattern": TEXT_PATTERN}),
        allow_none=True,
        metadata=_about(
            "Shown in the status and searchable",
            maxProperties=MAX_TAGS,
            propertyNames={"pattern": TEXT_PATTERN, "maxLength": MAX_TAG_LENGTH},
            example={"customer": "acme"},
        ),
    )
    start_at = Moment(data_key="startAt", allow_none=True, metadata=_about("Not before this moment"))
    if_exists = fields.String(
        data_key="ifExists",
        allow_none=True,
        validate=validate.OneOf([each.value for each in IfExists]),
        metadata=_about(
            "What to do when the id is in use: `error` (the default) answers 409, `return` answers with the existing instance, "
            "`replaceFinished` takes the place of one that has ended"
        ),
    )


class DurableReason(_Body):
    """Body of what takes a reason; not needed."""

    reason = fields.String(allow_none=True, metadata=_about("Why; kept in the history"))


class DurableHold(DurableReason):
    """Body of suspend and resume; not needed."""

    recursive = BodyFlag(allow_none=True, metadata=_about("Its sub-orchestrations too", default=False))


class DurableTerminate(DurableReason):
    """Body of terminate; not needed."""

    recursive = BodyFlag(allow_none=True, metadata=_about("Terminate its open sub-orchestrations too", default=True))


class DurableRestart(_Body):
    """Body of restart; not needed."""

    new_instance_id = BodyFlag(
        data_key="restartWithNewInstanceId", allow_none=True, metadata=_about("False runs it again under the same id", default=True)
    )


# ---------------------------------------------------------------- documents


class DurableLinks(_Document):
    """Where to go on with an instance. Replace ``{eventName}`` and ``{text}``; further query values may be appended with ``&``."""

    status_query_get_uri = fields.String(required=True, data_key="statusQueryGetUri", metadata=_about("GET: its status"))
    send_event_post_uri = fields.String(required=True, data_key="sendEventPostUri", metadata=_about("POST: raise an event"))
    terminate_post_uri = fields.String(required=True, data_key="terminatePostUri", metadata=_about("POST: terminate it"))
    purge_history_delete_uri = fields.String(required=True, data_key="purgeHistoryDeleteUri", metadata=_about("DELETE: purge it"))
    restart_post_uri = fields.String(required=True, data_key="restartPostUri", metadata=_about("POST: run it again"))
    suspend_post_uri = fields.String(required=True, data_key="suspendPostUri", metadata=_about("POST: suspend it"))
    resume_post_uri = fields.String(required=True, data_key="resumePostUri", metadata=_about("POST: resume it"))
    rewind_post_uri = fields.String(required=True, data_key="rewindPostUri", metadata=_about("POST: let it run on after a failure"))


class DurableStarted(DurableLinks):
    """Answer of a start or restart."""

    id = fields.String(required=True, metadata=_about("Id of the instance"))
    instance_id = fields.String(required=True, data_key="instanceId", metadata=_about("The same id"))
    management_urls = fields.Nested(DurableLinks, required=True, data_key="managementUrls", metadata=_about("The same links"))


class DurableAccepted(_Document):
    """Answer of an operation that was accepted."""

    id = fields.String(required=True, metadata=_about("Id of the instance"))
    instance_id = fields.String(required=True, data_key="instanceId", metadata=_about("The same id"))


class DurableDeleted(_Document):
    """Answer of a purge."""

    deleted = fields.Integer(required=True, data_key="instancesDeleted", metadata=_about("How many instances were deleted", minimum=0))


class DurableFailure(_Document):
    """What is known of an exception."""

    error_type = fields.String(required=True, data_key="errorType")
    error_message = fields.String(required=True, data_key="errorMessage")
    stack_trace = fields.String(data_key="stackTrace", allow_none=True)
    inner_failure = fields.Dict(data_key="innerFailure", allow_none=True)
    is_non_retriable = fields.Boolean(data_key="isNonRetriable")


class DurableHistoryEvent(_Document):
    """One entry of a history. Further fields depend on ``EventType`` and are spelled as in Azure's API."""

    event_type = fields.String(required=True, data_key="EventType", metadata=_about("What happened", example="TaskCompleted"))
    timestamp = fields.String(required=True, data_key="Timestamp", metadata=_about("When, in UTC", example="2026-01-31T12:00:00.1234560Z"))
    sequence = fields.Integer(data_key="Sequence", metadata=_about("Place in the history; only in the full history", minimum=1))


class DurableStatus(_Document):
    """Status of an instance; what does not apply is null."""

    name = fields.String(required=True, metadata=_about("Name of the orchestrator"))
    instance_id = fields.String(required=True, data_key="instanceId")
    runtime_status = fields.String(required=True, data_key="runtimeStatus", metadata=_about("Where it stands", enum=STATUS_NAMES))
    input = AnyJson(required=True, metadata=_about("What it was started with; null with showInput=false"))
    custom_status = AnyJson(required=True, data_key="customStatus", metadata=_about("What the orchestrator last set"))
    output = AnyJson(required=True, metadata=_about("Result of a completed one, text of the failure of a failed one, reason of a terminated one"))
    created_time = fields.DateTime(required=True, data_key="createdTime")
    last_updated_time = fields.DateTime(required=True, data_key="lastUpdatedTime")
    completed_time = fields.DateTime(required=True, allow_none=True, data_key="completedTime")
    scheduled_start_time = fields.DateTime(required=True, allow_none=True, data_key="scheduledStartTime")
    parent_instance_id = fields.String(required=True, allow_none=True, data_key="parentInstanceId")
    version = fields.String(required=True, allow_none=True)
    tags = fields.Dict(required=True, keys=fields.String(), values=fields.String())
    failure_details = fields.Nested(DurableFailure, required=True, allow_none=True, data_key="failureDetails")
    restarted_from = fields.String(required=True, allow_none=True, data_key="restartedFrom", metadata=_about("The instance that this one repeats"))
    parked_reason = fields.String(required=True, allow_none=True, data_key="parkedReason", metadata=_about("Why nobody works on it any more"))
    waiting_reason = fields.String(
        required=True, allow_none=True, data_key="waitingReason", metadata=_about("Why no running worker takes it, when it is due and none does")
    )
    history_events = fields.List(
        fields.Nested(DurableHistoryEvent),
        data_key="historyEvents",
        allow_none=True,
        metadata=_about("With showHistory: what happened, each call folded into its completion; null when the stored history cannot be read"),
    )
    history = fields.List(fields.Nested(DurableHistoryEvent), allow_none=True, metadata=_about("The same list"))
    history_error = fields.String(data_key="historyError", metadata=_about("Why the history cannot be read"))


class DurableVersionUse(_Document):
    """How many instances of one orchestrator have one version and have not ended."""

    name = fields.String(required=True, metadata=_about("Name of the orchestrator"))
    version = fields.String(required=True, allow_none=True, metadata=_about("The version; null for instances without one"))
    total = fields.Integer(required=True, metadata=_about("How many there are", minimum=1))
    counts = fields.Dict(required=True, keys=fields.String(), values=fields.Integer(), metadata=_about("How many there are in each status"))


class DurableError(_Document):
    """Any error."""

    message = fields.String(required=True, metadata=_about("What is wrong"))
    message_too = fields.String(required=True, data_key="Message", metadata=_about("The same text"))
    exception_message = fields.String(required=True, data_key="ExceptionMessage", metadata=_about("The same text"))
    code = fields.String(required=True, metadata=_about("A stable word for programs", example="instance_not_found"))
    status = fields.Integer(required=True, metadata=_about("The HTTP status", example=404))
    errors = fields.Dict(
        keys=fields.String(), values=fields.List(fields.String()), metadata=_about("What is wrong with which field, when it is about fields")
    )
    instance_id = fields.String(data_key="instanceId", metadata=_about("The instance, when it is about the state of one"))
    runtime_status = fields.String(data_key="runtimeStatus", metadata=_about("That state", enum=STATUS_NAMES))
