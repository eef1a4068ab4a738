"""Hello: three orchestrations, from a plain sequence to waiting for somebody."""

from datetime import timedelta

from flask import Flask

from flask_durable import FlaskDurable, RetryPolicy, current_activity

app = Flask(__name__)
app.config.from_prefixed_env()  # FLASK_DURABLE_DATABASE in the environment sets DURABLE_DATABASE, and so on
durable = FlaskDurable(app)


@durable.activity
def say_hello(city):
    return f"Hello {city}!"


@durable.activity
def charge(order):
    # The key stays the same however often this call is tried: a payment service uses it to charge only once
    return {"receipt": f"R-{order['orderId']}", "key": current_activity.idempotency_key}


@durable.activity
def ship(order):
    return f"T-{order['orderId']}"


@durable.activity
def refund(receipt):
    return f"{receipt} was paid back"


@durable.orchestrator(name="HelloSequence")
def hello_sequence(ctx, cities):
    greetings = []
    for city in cities or ["Tokyo", "Seattle", "London"]:
        greetings.append((yield ctx.call_activity(say_hello, city)))
    return greetings


@durable.orchestrator(name="ProcessOrder")
def process_order(ctx, order):
    policy = RetryPolicy(first_retry_interval=timedelta(seconds=1), max_number_of_attempts=5, backoff_coefficient=2)
    paid = yield ctx.call_activity(charge, order, retry_policy=policy)
    ctx.set_custom_status("paid; the customer may still cancel")
    cancelled = yield ctx.wait_for_external_event("Cancel", timeout=timedelta(seconds=3), default=False)
    if cancelled:
        return {"orderId": order["orderId"], "refund": (yield ctx.call_activity(refund, paid["receipt"]))}
    ctx.set_custom_status("shipping")
    return {"orderId": order["orderId"], "receipt": paid["receipt"], "tracking": (yield ctx.call_activity(ship, order))}


@durable.orchestrator(name="AwaitApproval")
def await_approval(ctx, request):
    approval = yield ctx.wait_for_external_event("Approval")
    return {"request": request, "approval": approval}
