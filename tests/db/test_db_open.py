import subprocess
import sys
import time
from pathlib import Path

import pytest
from db_builders import a_campaign
from sqlalchemy import Engine, event, text

from db.engine import open_database
from db.errors import DatabaseError
from db.queries import campaigns
from db.store import start_campaign
from db.transactions import reading, writing


def refusal(url: str) -> str:
    """What a person reads after naming this database."""
    with pytest.raises(DatabaseError) as refused:
        open_database(url)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("scheme", ["", "sqlite:///"])
def test_a_file_name_is_a_database(tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "100% new.db"
    engine = open_database(f"{scheme}{path}")

    start_campaign(engine, a_campaign())

    engine.dispose()
    assert path.read_bytes().startswith(b"SQLite format 3")


@pytest.mark.parametrize("url", [":memory:", "sqlite://"])
def test_a_database_in_memory_works_as_well(url: str) -> None:
    engine = open_database(url)

    start_campaign(engine, a_campaign())

    assert len(campaigns(engine)) == 1
    engine.dispose()


def test_what_was_stored_is_there_when_it_is_opened_again(url: str) -> None:
    first = open_database(url)
    start_campaign(first, a_campaign(seed=5))
    first.dispose()

    second = open_database(url)

    assert [row.seed for row in campaigns(second)] == [5]
    second.dispose()


def test_opening_an_up_to_date_file_is_quick(tmp_path: Path) -> None:
    def seconds() -> float:
        started = time.perf_counter()
        open_database(str(tmp_path / "findings.db")).dispose()
        return time.perf_counter() - started

    seconds()

    assert min(seconds() for _ in range(5)) < 0.1


def test_opening_an_up_to_date_database_loads_no_migration_tool(tmp_path: Path) -> None:
    path = str(tmp_path / "findings.db")
    open_database(path).dispose()
    program = "import sys, db.engine; db.engine.open_database(sys.argv[1]).dispose(); sys.exit('alembic' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program, path], cwd=Path(__file__).parents[2]).returncode == 0


@pytest.mark.parametrize(
    ("url", "said"),
    [
        pytest.param("", "database: the name is empty", id="empty"),
        pytest.param("mongodb://u:s3cret@host/x", "mongodb://...: databases of this kind are not supported", id="unknown-scheme"),
        pytest.param("mysql://u:s3cret@host/x", "mysql://...: databases of this kind are not supported", id="another-database"),
        pytest.param("postgresql://u:s3cret@host:port/x", "postgresql://...: not a database URL", id="bad-port"),
        pytest.param("://u:s3cret@host", "://...: not a database URL", id="no-scheme"),
        pytest.param("postgresql+odd://u:s3cret@host/x", "there is no driver postgresql+odd", id="unknown-driver"),
        pytest.param("postgresql+pg8000://u:s3cret@host/x", "pip install pg8000", id="driver-not-installed"),
        pytest.param("sqlite+aiosqlite:///x.db", "aiosqlite", id="asynchronous-driver"),
    ],
)
def test_a_url_that_cannot_work_is_refused_in_one_line_without_its_password(url: str, said: str) -> None:
    message = refusal(url)

    assert said in message
    assert "s3cret" not in message


def test_a_server_that_is_away_is_named_without_the_password() -> None:
    pytest.importorskip("psycopg", reason="the PostgreSQL driver is not installed")

    message = refusal("postgresql://u:s3cret@127.0.0.1:1/x?password=s3cret")

    assert message.startswith("postgresql://u:***@127.0.0.1:1/x: ")
    assert "check that the server runs" in message
    assert "s3cret" not in message


def test_a_file_that_is_not_a_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database " * 100)

    assert refusal(str(path)) == f"{path}: file is not a database; name another file, or a new one"
    assert path.read_text() == "not a database " * 100


def test_a_folder_that_does_not_exist_is_the_users_to_make(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "findings.db"

    assert refusal(str(path)) == f"{path}: unable to open database file; check that the folder exists and can be written"


def test_the_database_of_another_program_is_left_alone(url: str) -> None:
    engine = open_database(url)
    with writing(engine) as connection:
        connection.execute(text("DROP TABLE alembic_version"))
    engine.dispose()

    assert "holds the tables of another program; name a new file or an empty database" in refusal(url)


def test_a_newer_schema_is_left_alone(url: str) -> None:
    engine = open_database(url)
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()

    assert "its schema 9999 is newer than this program's" in refusal(url)


def test_a_reader_does_not_wait_for_a_writer(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(text("DELETE FROM campaign"))

        assert campaigns(engine) == []


def test_a_file_that_stays_locked_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "findings.db"
    holder, impatient = open_database(str(path)), open_database(str(path))
    impatient.dispose()
    event.listen(impatient, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout=1"))

    with writing(holder), pytest.raises(DatabaseError) as refused:
        start_campaign(impatient, a_campaign())

    assert str(refused.value) == f"{path}: database is locked; another process is writing; try again"
    holder.dispose()
    impatient.dispose()


def test_a_mistake_of_ours_is_not_explained_away(engine: Engine) -> None:
    with pytest.raises(Exception, match="no_such_table") as raised, reading(engine) as connection:
        connection.execute(text("SELECT * FROM no_such_table"))

    assert not isinstance(raised.value, DatabaseError)
