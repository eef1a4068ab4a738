"""Approval: a person decides before a deadline, or the next one is asked."""

from datetime import timedelta

from flask import Flask, abort, jsonify, request

from flask_durable import FlaskDurable, InstanceFinishedError, InstanceNotFoundError

app = Flask(__name__)
app.config.from_prefixed_env()  # FLASK_DURABLE_DATABASE in the environment sets DURABLE_DATABASE, and so on
durable = FlaskDurable(app)


@durable.activity
def ask(question):
    app.logger.info("To the %s: may %s spend %s?", question["approver"], question["who"], question["amount"])


@durable.activity
def tell(answer):
    app.logger.info("To %s: %s", answer["who"], "yes" if answer["approved"] else "no")


@durable.orchestrator
def expense_claim(ctx, claim):
    deadline = timedelta(seconds=claim.get("deadlineSeconds", 3 * 24 * 3600))
    decision = None
    for approver in ("manager", "director"):
        yield ctx.call_activity(ask, {**claim, "approver": approver})
        ctx.set_custom_status(f"waiting for the {approver}")
        decision = yield ctx.wait_for_external_event("Decision", timeout=deadline, default=None)
        if decision is not None:
            break
    approved = decision is not None and decision["approved"]
    yield ctx.call_activity(tell, {"who": claim["who"], "approved": approved})
    return {"approved": approved, "by": decision["by"] if decision else "nobody: both deadlines went by"}


@app.post("/claims")
def make_claim():
    claim_id = durable.client.start(expense_claim, request.get_json())
    return jsonify(id=claim_id), 202


@app.get("/claims/<claim_id>")
def show_claim(claim_id):
    status = durable.client.get_status(claim_id) or abort(404)
    return jsonify(state=status.runtime_status, waiting=status.custom_status, result=status.output)


@app.post("/claims/<claim_id>/decision")
def decide(claim_id):
    decision = request.get_json()
    try:
        durable.client.raise_event(claim_id, "Decision", {"approved": bool(decision["approved"]), "by": str(decision["by"])})
    except InstanceNotFoundError:
        abort(404)
    except InstanceFinishedError:
        abort(410)
    return "", 202
