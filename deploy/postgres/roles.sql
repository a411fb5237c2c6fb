-- Run once, by the superuser, when the database is made: who may do what.
--   owner    owns the tables and changes them: only `entryfuzz db upgrade` comes as this one
--   workers  read and write rows: workers and the scheduler
--   readers  read: people and what they ask with
\getenv owner_password DB_OWNER_PASSWORD
\getenv workers_password DB_WORKERS_PASSWORD
\getenv readers_password DB_READERS_PASSWORD

CREATE ROLE owner LOGIN PASSWORD :'owner_password';
CREATE ROLE workers LOGIN PASSWORD :'workers_password';
CREATE ROLE readers LOGIN PASSWORD :'readers_password' CONNECTION LIMIT 20;

-- Nobody waits for a reader for long.
ALTER ROLE readers SET default_transaction_read_only = on;
ALTER ROLE readers SET statement_timeout = '60s';
ALTER ROLE readers SET idle_in_transaction_session_timeout = '60s';

REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
ALTER DATABASE :"DBNAME" OWNER TO owner;
GRANT CONNECT ON DATABASE :"DBNAME" TO workers, readers;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO owner;
GRANT USAGE ON SCHEMA public TO workers, readers;

-- For every table, view and sequence that a migration will make.
ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO workers;
ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA public GRANT SELECT ON TABLES TO readers;
ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA public GRANT USAGE ON SEQUENCES TO workers;
ALTER DEFAULT PRIVILEGES FOR ROLE owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
