"""What is read of statements: tables written, and what would end the transaction."""

from __future__ import annotations

import pytest

from soc_tasks.logic.statements import read_statement


@pytest.mark.parametrize(
    ("sql", "writes"),
    [
        ('SELECT "a" FROM "b"', []),
        ('SELECT 1 FROM "b" WHERE "a" = %s FOR UPDATE', []),
        ('SELECT 1 FROM "b" FOR NO KEY UPDATE OF "b"', []),
        ('INSERT INTO "b" ("a") VALUES (%s) RETURNING "b"."id"', [("INSERT", "b")]),
        ('INSERT OR IGNORE INTO "b" ("a") VALUES (1)', [("INSERT", "b")]),
        ('INSERT INTO "b" ("a") VALUES (1) ON CONFLICT ("a") DO UPDATE SET "a" = 2', [("INSERT", "b")]),
        ("INSERT INTO `b` (`a`) VALUES (1) ON DUPLICATE KEY UPDATE `a` = 2", [("INSERT", "b")]),
        ("/* why */ -- so\n  update `b` set `a` = 1", [("UPDATE", "b")]),
        ('UPDATE "s"."b" SET "delete" = 1', [("UPDATE", "s.b")]),
        ('DELETE FROM ONLY "b" WHERE "a" IN (SELECT 1)', [("DELETE", "b")]),
        ("REPLACE INTO b VALUES (1)", [("REPLACE", "b")]),
        ('WITH "x" AS (SELECT 1) UPDATE "b" SET "a" = 1', [("UPDATE", "b")]),
        ('WITH x AS (DELETE FROM "c" RETURNING *) INSERT INTO "b" SELECT * FROM x', [("DELETE", "c"), ("INSERT", "b")]),
        ("""SELECT 'x; DELETE FROM "b"' """, []),
        ('TRUNCATE "b"', [("TRUNCATE", "b")]),
        ("CREATE TABLE IF NOT EXISTS b (a int)", [("CREATE", "b")]),
        ("DROP TABLE b", [("DROP", "b")]),
        ("", []),
    ],
)
def test_the_tables_that_are_written(sql, writes):
    assert list(read_statement(sql).writes) == writes


@pytest.mark.parametrize(
    "sql", ["COMMIT", "commit;", "ROLLBACK", "BEGIN", "START TRANSACTION", "END", "set autocommit = 1", "-- x\nCOMMIT"]
)
def test_what_ends_a_transaction(sql):
    assert read_statement(sql).ends_transaction(rolls_ddl_back=True)


@pytest.mark.parametrize(
    "sql",
    [
        'SAVEPOINT "x"',
        'ROLLBACK TO SAVEPOINT "x"',
        'RELEASE SAVEPOINT "x"',
        "SELECT 1",
        "UPDATE b SET a = 1",
        "SET x = 1",
    ],
)
def test_what_does_not(sql):
    assert not read_statement(sql).ends_transaction(rolls_ddl_back=False)


@pytest.mark.parametrize(
    "sql", ["CREATE TABLE b (a int)", "ALTER TABLE b ADD c int", "TRUNCATE b", "LOCK TABLES b WRITE"]
)
def test_the_schema_is_of_the_transaction_on_some_databases(sql):
    assert read_statement(sql).ends_transaction(rolls_ddl_back=False)
    assert not read_statement(sql).ends_transaction(rolls_ddl_back=True)
    assert not read_statement("CREATE TEMPORARY TABLE b (a int)").ends_transaction(rolls_ddl_back=False)
