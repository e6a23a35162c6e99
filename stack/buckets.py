"""Which buckets must the object store have? Made where they are missing; run by the service `buckets` of docker-compose.yml."""

from __future__ import annotations

import sys

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKETS = ("mlflow", "dvc")


def main() -> None:
    """Make the buckets with the admin's keys, from AWS' own variables. Ends with a sentence where the store refuses."""
    # Right after its start the store answers, but does not take a first object yet: it is asked again.
    client = boto3.client(
        "s3", config=Config(connect_timeout=5, retries={"max_attempts": 8, "mode": "standard"}, s3={"addressing_style": "path"})
    )
    try:
        there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
        for name in BUCKETS:
            if name not in there:
                client.create_bucket(Bucket=name)
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"The object store refuses: {error}. Check that the service objects is up, and ADMIN_S3_SECRET in .env.")
    print(f"buckets are there: {', '.join(BUCKETS)}")


if __name__ == "__main__":
    main()
