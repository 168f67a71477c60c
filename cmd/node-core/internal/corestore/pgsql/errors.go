package pgsql

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Codes of errors (Appendix A of PostgreSQL's manual).
const (
	codeSerialization    = "40001" // serialization_failure
	codeDeadlock         = "40P01" // deadlock_detected
	codeUnique           = "23505" // unique_violation
	codeNoDatabase       = "3D000" // invalid_catalog_name
	codePassword         = "28P01" // invalid_password
	codeAuthorization    = "28000" // invalid_authorization_specification
	codeReadOnly         = "25006" // read_only_sql_transaction
	codePrivilege        = "42501" // insufficient_privilege
	codeTooMany          = "53300" // too_many_connections
	codeDiskFull         = "53100" // disk_full
	codeLockTimeout      = "55P03" // lock_not_available
	codeStartingUp       = "57P03" // cannot_connect_now
	codeUndefinedPrepare = "26000" // invalid_sql_statement_name
	codeDuplicatePrepare = "42P05" // duplicate_prepared_statement
)

func code(err error) string {
	if failure, ok := errors.AsType[*pgconn.PgError](err); ok {
		return failure.Code
	}
	return ""
}

// IsConflict reports whether the database gave up a transaction for the sake of another one. It
// has changed nothing, and can be tried again.
func IsConflict(err error) bool {
	c := code(err)
	return c == codeSerialization || c == codeDeadlock
}

// IsDuplicate reports whether a row exists already, in a table whose name begins so.
func IsDuplicate(err error, table string) bool {
	failure, ok := errors.AsType[*pgconn.PgError](err)
	return ok && failure.Code == codeUnique && strings.HasPrefix(failure.TableName, table)
}

// IsLockTimeout reports whether a lock was waited for longer than lock_timeout.
func IsLockTimeout(err error) bool { return code(err) == codeLockTimeout }

// Advice says what to do about an error of the database; empty where nothing is known.
func Advice(err error) string {
	switch code(err) {
	case codeNoDatabase:
		return "; make it: createdb --owner USER DATABASE"
	case codePassword, codeAuthorization:
		return "; see to the user and the password of --database or its file, and to pg_hba.conf"
	case codeReadOnly:
		return "; it is a standby: name the primary, or all of them with target_session_attrs=read-write"
	case codePrivilege:
		return "; make the user of --database the owner of the database"
	case codeTooMany:
		return "; raise max_connections of PostgreSQL, or put a pooler before it"
	case codeDiskFull:
		return "; the disk of PostgreSQL is full: make room on it"
	case codeStartingUp:
		return "; PostgreSQL is starting: wait until it takes connections"
	case codeUndefinedPrepare, codeDuplicatePrepare:
		return "; a pooler is before PostgreSQL that forgets prepared statements: add default_query_exec_mode=exec to --database"
	case "":
	default:
		return ""
	}
	if _, ok := errors.AsType[*net.OpError](err); ok || errors.Is(err, context.DeadlineExceeded) {
		return "; see whether PostgreSQL runs there and can be reached"
	}
	return ""
}
