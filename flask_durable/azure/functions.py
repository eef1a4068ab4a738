"""How functions are registered in Azure's SDK: Orchestrator.create, and the decorators of DFApp and Blueprint."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any, NoReturn

from flask_durable.azure.client import DurableOrchestrationClient
from flask_durable.azure.context import DurableOrchestrationContext
from flask_durable.azure.values import NotSupportedError
from flask_durable.core.context import OrchestrationContext
from flask_durable.errors import InvalidArgumentError
from flask_durable.extension import DurableBlueprint

Function = Callable[..., Any]


class Orchestrator:
    """Makes orchestrators that were written for Azure fit for registration."""

    @staticmethod
    def create(fn: Function) -> Function:
        """The function, made to be called with the native context; give it to ``durable.orchestrator``.

        Called with any other context, as unit tests do, it is the function itself.

        Raises:
            InvalidArgumentError: the function takes anything but the context.
        """
        _check_parameter("An orchestrator", fn, None)

        @functools.wraps(fn)
        def orchestrate(context: Any) -> Any:
            return fn(DurableOrchestrationContext(context) if isinstance(context, OrchestrationContext) else context)

        return orchestrate


class Blueprint(DurableBlueprint):
    """Orchestrators and activities under Azure's decorators; set up with ``durable.register(blueprint)``.

    Args:
        http_auth_level: taken and not used; DURABLE_API_KEYS and DURABLE_AUTHORIZER say who may use the management API.
    """

    def __init__(self, http_auth_level: object = None) -> None:
        super().__init__()
        self.http_auth_level = http_auth_level

    def orchestration_trigger(self, context_name: str, orchestration: str | None = None) -> Callable[[Function], Function]:
        """Register an orchestrator.

        Args:
            context_name: name of the function's parameter.
            orchestration: name to register it under; otherwise its own.
        """

        def decorator(function: Function) -> Function:
            _check_parameter("An orchestrator", function, context_name)
            created = Orchestrator.create(function)
            self.registry.add_orchestrator(created, orchestration)
            return created

        return decorator

    def activity_trigger(self, input_name: str, activity: str | None = None) -> Callable[[Function], Function]:
        """Register an activity, which may be an ``async def`` function.

        Args:
            input_name: name of the function's parameter.
            activity: name to register it under; otherwise its own.
        """

        def decorator(function: Function) -> Function:
            _check_parameter("An activity", function, input_name)
            created = _synchronous(function) if inspect.iscoroutinefunction(function) else function
            self.registry.add_activity(created, activity)
            return created

        return decorator

    def durable_client_input(
        self, client_name: str, task_hub: str | None = None, connection_name: str | None = None
    ) -> Callable[[Function], Function]:
        """Give a view the client of the current app.

        Args:
            client_name: name of the function's parameter.
            task_hub: not supported.
            connection_name: not supported.
        """
        if task_hub is not None or connection_name is not None:
            raise NotSupportedError("task_hub_name and connection_name")

        def decorator(function: Function) -> Function:
            @functools.wraps(function)
            def with_client(*arguments: Any, **named: Any) -> Any:
                return function(*arguments, **{client_name: DurableOrchestrationClient(), **named})

            return with_client

        return decorator

    def entity_trigger(self, *_arguments: Any, **_named: Any) -> NoReturn:
        """Not supported."""
        raise NotSupportedError("entities")

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"flask_durable.azure has no decorator {name!r}, but orchestration_trigger, activity_trigger and durable_client_input; "
            "write HTTP triggers as Flask views (@app.route), and other triggers with whatever starts them in your app"
        )


class DFApp(Blueprint):
    """The same; ``register_functions`` takes in the functions of a Blueprint."""

    def register_functions(self, function_container: DurableBlueprint) -> None:
        """Add the orchestrators and activities of a blueprint."""
        self.registry.include(function_container.registry)


def _check_parameter(what: str, function: Function, name: str | None) -> None:
    parameters = list(inspect.signature(function).parameters.values())
    required = [parameter for parameter in parameters[1:] if parameter.default is inspect.Parameter.empty]
    if not parameters or required or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise InvalidArgumentError(f"{what} written for Azure takes one argument; {function.__name__} takes {inspect.signature(function)}")
    if name is not None and parameters[0].name != name:
        raise InvalidArgumentError(f"The decorator of {function.__name__} names its parameter {name!r}, but it is {parameters[0].name!r}")


def _synchronous(function: Function) -> Function:
    """An activity has a thread of its own, so that it may have an event loop of its own too."""

    @functools.wraps(function)
    def run(value: Any) -> Any:
        return asyncio.run(function(value))

    return run
