/* The commands of `keyturn` in one table: name, function, one line. */
#include "cli/cli.h"

const struct kt_command kt_commands[] = {
        {"run", "", "run the agent: issue, renew, deliver, signal and prove for ever", kt_cli_run_options, 0, 0,
         kt_cli_run},
        {"renew", "[NAME...]", "do what is due now, or renew what is named, and wait for the proof", kt_cli_renew_options,
         0, -1, kt_cli_renew},
        {"status", "[NAME]", "show every credential, or one with all that belongs to it", kt_cli_status_options, 0, 1,
         kt_cli_status},
        {"plan", "", "show what would be done and when; touches nothing", NULL, 0, 0, kt_cli_plan},
        {"why", "NAME", "say why a credential is, or is not, being renewed", NULL, 1, 1, kt_cli_why},
        {"check", "[FILE...]", "check manifests without doing anything", kt_cli_check_options, 0, -1, kt_cli_check},
        {"rehearse", "", "play the schedule on a virtual clock", kt_cli_rehearse_options, 0, 0, kt_cli_rehearse},
        {"token", "NAME", "print a valid token", kt_cli_token_options, 1, 1, kt_cli_token},
        {"secret set", "NAME KEY[=FILE|=-]...", "store secrets that manifests refer to", kt_cli_secret_set_options, 2, -1,
         kt_cli_secret_set},
        {"secret list", "", "list stored secrets, never their values", kt_cli_secret_list_options, 0, 0,
         kt_cli_secret_list},
        {"secret rm", "NAME [KEY]", "remove a stored secret", kt_cli_secret_rm_options, 1, 2, kt_cli_secret_rm},
        {"audit", "", "show the audit trail, or verify it", kt_cli_audit_options, 0, 0, kt_cli_audit},
        {"trace", "ID [FILE...]", "show everything of one trace on a line of time", kt_cli_trace_options, 1, -1, kt_cli_trace},
        {"reload", "", "let the agent read its manifests again", kt_cli_reload_options, 0, 0, kt_cli_reload},
        {"quit", "", "end the agent: what is in flight is finished first", NULL, 0, 0, kt_cli_quit},
        {"doctor", "", "say what works on this machine: walls, volumes, signals, clock", NULL, 0, 0, kt_cli_doctor},
        {"master-key rotate", "", "make a new master key and seal everything under it", NULL, 0, 0, kt_cli_master_key},
        {"version", "", "print the version", NULL, 0, 0, kt_cli_version},
        {NULL, NULL, NULL, NULL, 0, 0, NULL},
};
