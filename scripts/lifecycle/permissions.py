"""What the login may do in the registry."""

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.registry import RegisteredModel

ABSENT_ALIAS = "permission-check"
"""No service follows it, and no script sets it."""


def check_may_remove_aliases(model: RegisteredModel) -> None:
    """Checks that the login may remove an alias, by removing one that is not set.

    Any registry answers that, whatever checks its permissions. Source: MLflow's basic auth, which asks for EDIT to set
    an alias and for MANAGE to remove one.

    Raises:
        LifecycleError: the registry forbids it.
    """
    from mlflow.exceptions import MlflowException

    with model.asking("the permissions could not be checked") as client:
        try:
            client.delete_registered_model_alias(model.name, ABSENT_ALIAS)
        except MlflowException as error:
            if error.error_code == "PERMISSION_DENIED":
                raise LifecycleError(
                    f"this login may not remove aliases of {model.name!r}, which ends a challenger or shadow; it needs the "
                    "permission MANAGE on the registered model (docs/kubernetes.md#a-registry-with-logins)"
                ) from None
            # Other errors say nothing about permissions: the alias is not set.
