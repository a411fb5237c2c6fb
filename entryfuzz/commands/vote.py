"""`entryfuzz vote`."""

from __future__ import annotations

import click

from entryfuzz.commands.options import database_option, json_option


@click.command()
@click.argument("bucket_ids", metavar="[ID]...", nargs=-1)
@click.option("--all-open", is_flag=True, help="Vote on every open bucket, those that came back included.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes; their number changes no verdict.")
@database_option
@json_option
def vote(bucket_ids: tuple[str, ...], all_open: bool, jobs: int, database: str, as_json: bool) -> None:
    """Run the stored case of a bucket on every engine there is, and store who is wrong.

    ID is a bucket's id, or as many of its first digits as tell it from others.
    """
    if bool(bucket_ids) == all_open:
        raise click.UsageError("name buckets, or give --all-open.", click.get_current_context())

    from entryfuzz.output import print_json, print_view
    from entryfuzz.views import votes
    from entryfuzz.voting import vote_with_progress

    voted = vote_with_progress(bucket_ids, all_open, database, jobs)
    if as_json:
        print_json([votes.voted_json(each) for each in voted])
    else:
        print_view(*votes.voted(voted))
