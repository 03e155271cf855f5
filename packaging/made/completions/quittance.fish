# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_quittance_global_optspecs
    string join \n config= h/help V/version
end

function __fish_quittance_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_quittance_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_quittance_using_subcommand
    set -l cmd (__fish_quittance_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c quittance -n "__fish_quittance_needs_command" -l config -d 'The configuration' -r -F
complete -c quittance -n "__fish_quittance_needs_command" -s h -l help -d 'Print help'
complete -c quittance -n "__fish_quittance_needs_command" -s V -l version -d 'Print version'
complete -c quittance -n "__fish_quittance_needs_command" -f -a "serve" -d 'Run the daemon until SIGTERM'
complete -c quittance -n "__fish_quittance_needs_command" -f -a "check" -d 'Tell everything that is wrong with the configuration, or what each source is worth'
complete -c quittance -n "__fish_quittance_needs_command" -f -a "demo" -d 'Show the main job with throw-away keys: genuine, repeated, forged and shifted notifications of every provider'
complete -c quittance -n "__fish_quittance_needs_command" -f -a "expect" -d 'Say which payment is expected, so that the event about it can say `fulfil`'
complete -c quittance -n "__fish_quittance_needs_command" -f -a "send" -d 'Send a test notification, signed as the provider signs'
complete -c quittance -n "__fish_quittance_needs_command" -f -a "list" -d 'List the notifications that were kept'
complete -c quittance -n "__fish_quittance_needs_command" -f -a "show" -d 'Show one notification, or what happened to an order'
complete -c quittance -n "__fish_quittance_needs_command" -f -a "tail" -d 'Print events as they come'
complete -c quittance -n "__fish_quittance_needs_command" -f -a "export" -d 'Print notifications as JSON lines, for an archive or another program'
complete -c quittance -n "__fish_quittance_needs_command" -f -a "doctor" -d 'Look at store, index, broker, clock, keys, file rights and disk, and say what to do'
complete -c quittance -n "__fish_quittance_needs_command" -f -a "completions" -d 'Print a shell\'s completions'
complete -c quittance -n "__fish_quittance_needs_command" -f -a "man" -d 'Print the manual page'
complete -c quittance -n "__fish_quittance_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c quittance -n "__fish_quittance_using_subcommand serve" -l config -d 'The configuration' -r -F
complete -c quittance -n "__fish_quittance_using_subcommand serve" -l restored -d 'The store comes from a backup: hold every event, from now on and after every later start, until --restored-ended'
complete -c quittance -n "__fish_quittance_using_subcommand serve" -l restored-ended -d 'What happened since the backup has been compared with the providers: stop holding'
complete -c quittance -n "__fish_quittance_using_subcommand serve" -l confirm-clock -d 'The clock is right although it is before the newest record or more than 48 hours after it: told once, after a long stop or a mended clock. Until then every event is held and nothing expires'
complete -c quittance -n "__fish_quittance_using_subcommand serve" -s h -l help -d 'Print help'
complete -c quittance -n "__fish_quittance_using_subcommand check" -l config -d 'The configuration' -r -F
complete -c quittance -n "__fish_quittance_using_subcommand check" -l connect -d 'Also reach the broker of [relay.amqp]'
complete -c quittance -n "__fish_quittance_using_subcommand check" -l live -d 'Only ask the running daemon whether it is ready'
complete -c quittance -n "__fish_quittance_using_subcommand check" -l json -d 'One JSON object a line'
complete -c quittance -n "__fish_quittance_using_subcommand check" -s h -l help -d 'Print help'
complete -c quittance -n "__fish_quittance_using_subcommand demo" -l break -d 'Spoil the input of one case, `<provider>/<case>`, to see that the demo can fail' -r
complete -c quittance -n "__fish_quittance_using_subcommand demo" -l config -d 'The configuration' -r -F
complete -c quittance -n "__fish_quittance_using_subcommand demo" -l stay -d 'Keep the daemon running until Ctrl-C, to look around'
complete -c quittance -n "__fish_quittance_using_subcommand demo" -l json -d 'One JSON object a line'
complete -c quittance -n "__fish_quittance_using_subcommand demo" -s h -l help -d 'Print help'
complete -c quittance -n "__fish_quittance_using_subcommand expect" -l source -d 'The source at which the notification will arrive' -r
complete -c quittance -n "__fish_quittance_using_subcommand expect" -l order -d 'The order\'s number' -r
complete -c quittance -n "__fish_quittance_using_subcommand expect" -l amount -d 'How much, as a plain decimal' -r
complete -c quittance -n "__fish_quittance_using_subcommand expect" -l currency -d 'In which currency, as in KWD' -r
complete -c quittance -n "__fish_quittance_using_subcommand expect" -l kind -d 'What moves' -r -f -a "payment\t''
payout\t''
refund\t''"
complete -c quittance -n "__fish_quittance_using_subcommand expect" -l session -d 'Click KW: the session; ClickGem: the getid' -r
complete -c quittance -n "__fish_quittance_using_subcommand expect" -l indicator -d 'Click KW: the session\'s indicator. A command line can be read by everybody on the machine: rather use --indicator-file' -r
complete -c quittance -n "__fish_quittance_using_subcommand expect" -l indicator-file -d 'Click KW: a file with the session\'s indicator; - for standard input' -r -F
complete -c quittance -n "__fish_quittance_using_subcommand expect" -l expires -d 'How long the expectation holds: 30m, 24h, 7d. Left out: 24h' -r
complete -c quittance -n "__fish_quittance_using_subcommand expect" -l from -d 'Many at once: a file with a JSON object a line; - for standard input' -r -F
complete -c quittance -n "__fish_quittance_using_subcommand expect" -l config -d 'The configuration' -r -F
complete -c quittance -n "__fish_quittance_using_subcommand expect" -l json -d 'One JSON object a line, as the admin API answers'
complete -c quittance -n "__fish_quittance_using_subcommand expect" -s h -l help -d 'Print help'
complete -c quittance -n "__fish_quittance_using_subcommand send" -l source -d 'The source, where the configuration has several of that provider' -r
complete -c quittance -n "__fish_quittance_using_subcommand send" -l to -d 'Where to, as http://HOST:PORT/PATH. Without a path the source\'s is added; a source\'s path gets the order\'s return URL where the provider has one. Left out: the listener of the configuration' -r
complete -c quittance -n "__fish_quittance_using_subcommand send" -l order -d 'The order\'s number. Left out: one made of the time' -r
complete -c quittance -n "__fish_quittance_using_subcommand send" -l amount -d 'How much, as a plain decimal. Left out: 10000.00 for clickpay, else 10.00' -r
complete -c quittance -n "__fish_quittance_using_subcommand send" -l currency -d 'In which currency (paygol). Left out: USD. The others have none in a notification' -r
complete -c quittance -n "__fish_quittance_using_subcommand send" -l status -d 'paid, pending, failed, canceled, refunded, partially_paid, as far as the provider has it; else the provider\'s own word, sent as it is' -r
complete -c quittance -n "__fish_quittance_using_subcommand send" -l transaction -d 'The provider\'s number of the transaction. Left out: a new one' -r
complete -c quittance -n "__fish_quittance_using_subcommand send" -l repeat -d 'How often the same notification is sent in all' -r
complete -c quittance -n "__fish_quittance_using_subcommand send" -l private-key -d 'clickpay: the platform\'s private key, PEM or base64 (PKCS#8 or PKCS#1)' -r -F
complete -c quittance -n "__fish_quittance_using_subcommand send" -l indicator -d 'clickkw: the session\'s indicator; prefer --indicator-file. Left out: one that nobody knows' -r
complete -c quittance -n "__fish_quittance_using_subcommand send" -l indicator-file -d 'clickkw: a file with the session\'s indicator; - for standard input' -r -F
complete -c quittance -n "__fish_quittance_using_subcommand send" -l config -d 'The configuration' -r -F
complete -c quittance -n "__fish_quittance_using_subcommand send" -l forge -d 'With a wrong signature, key or tag'
complete -c quittance -n "__fish_quittance_using_subcommand send" -l json -d 'One JSON object a line'
complete -c quittance -n "__fish_quittance_using_subcommand send" -s h -l help -d 'Print help'
complete -c quittance -n "__fish_quittance_using_subcommand list" -l source -d 'Only of this source' -r
complete -c quittance -n "__fish_quittance_using_subcommand list" -l order -d 'Only of this order' -r
complete -c quittance -n "__fish_quittance_using_subcommand list" -l outcome -d 'Only what came to be kept in this way' -r -f -a "accepted\t''
conflict\t''
released\t''"
complete -c quittance -n "__fish_quittance_using_subcommand list" -l status -d 'Only in this state' -r -f -a "paid\t''
partially_paid\t''
pending\t''
failed\t''
canceled\t''
refunded\t''
unknown\t''"
complete -c quittance -n "__fish_quittance_using_subcommand list" -l verdict -d 'Only with this verdict' -r -f -a "fulfil\t''
compare\t''
hold\t''
none\t''"
complete -c quittance -n "__fish_quittance_using_subcommand list" -l since -d 'Only what arrived then or later: 2026-11-20T08:00:00Z, or how long ago, as in 2h' -r
complete -c quittance -n "__fish_quittance_using_subcommand list" -l until -d 'Only what arrived before then' -r
complete -c quittance -n "__fish_quittance_using_subcommand list" -l limit -d 'How many at most, 1 to 1000' -r
complete -c quittance -n "__fish_quittance_using_subcommand list" -l after -d 'Go on where the list before ended: the text that it told' -r
complete -c quittance -n "__fish_quittance_using_subcommand list" -l config -d 'The configuration' -r -F
complete -c quittance -n "__fish_quittance_using_subcommand list" -l all -d 'All of them, page after page'
complete -c quittance -n "__fish_quittance_using_subcommand list" -l json -d 'One JSON object a line'
complete -c quittance -n "__fish_quittance_using_subcommand list" -s h -l help -d 'Print help'
complete -c quittance -n "__fish_quittance_using_subcommand show" -l order -d 'An order\'s history instead' -r
complete -c quittance -n "__fish_quittance_using_subcommand show" -l config -d 'The configuration' -r -F
complete -c quittance -n "__fish_quittance_using_subcommand show" -l json -d 'One JSON object'
complete -c quittance -n "__fish_quittance_using_subcommand show" -s h -l help -d 'Print help'
complete -c quittance -n "__fish_quittance_using_subcommand tail" -s n -l lines -d 'How many of the events that are there already: a number, or all' -r
complete -c quittance -n "__fish_quittance_using_subcommand tail" -l after -d 'Everything after this cursor of the feed instead' -r
complete -c quittance -n "__fish_quittance_using_subcommand tail" -l config -d 'The configuration' -r -F
complete -c quittance -n "__fish_quittance_using_subcommand tail" -l no-follow -d 'End where the feed ends now'
complete -c quittance -n "__fish_quittance_using_subcommand tail" -s f -l follow -d 'Go on as events come: the default'
complete -c quittance -n "__fish_quittance_using_subcommand tail" -l json -d 'One JSON object a line'
complete -c quittance -n "__fish_quittance_using_subcommand tail" -s h -l help -d 'Print help'
complete -c quittance -n "__fish_quittance_using_subcommand export" -l source -d 'Only of this source' -r
complete -c quittance -n "__fish_quittance_using_subcommand export" -l order -d 'Only of this order' -r
complete -c quittance -n "__fish_quittance_using_subcommand export" -l outcome -d 'Only what came to be kept in this way' -r -f -a "accepted\t''
conflict\t''
released\t''"
complete -c quittance -n "__fish_quittance_using_subcommand export" -l status -d 'Only in this state' -r -f -a "paid\t''
partially_paid\t''
pending\t''
failed\t''
canceled\t''
refunded\t''
unknown\t''"
complete -c quittance -n "__fish_quittance_using_subcommand export" -l verdict -d 'Only with this verdict' -r -f -a "fulfil\t''
compare\t''
hold\t''
none\t''"
complete -c quittance -n "__fish_quittance_using_subcommand export" -l since -d 'Only what arrived then or later: 2026-11-20T08:00:00Z, or how long ago, as in 2h' -r
complete -c quittance -n "__fish_quittance_using_subcommand export" -l until -d 'Only what arrived before then' -r
complete -c quittance -n "__fish_quittance_using_subcommand export" -l config -d 'The configuration' -r -F
complete -c quittance -n "__fish_quittance_using_subcommand export" -l whole -d 'With the request, how it was proven, the event, and what became of it'
complete -c quittance -n "__fish_quittance_using_subcommand export" -s h -l help -d 'Print help'
complete -c quittance -n "__fish_quittance_using_subcommand doctor" -l since -d 'A head that was noted elsewhere, as <position>:<hash> or the hash alone' -r
complete -c quittance -n "__fish_quittance_using_subcommand doctor" -l config -d 'The configuration' -r -F
complete -c quittance -n "__fish_quittance_using_subcommand doctor" -l verify -d 'Walk the whole journal'
complete -c quittance -n "__fish_quittance_using_subcommand doctor" -l rebuild-index -d 'Throw the index away and build it from the journal'
complete -c quittance -n "__fish_quittance_using_subcommand doctor" -l json -d 'One JSON object a line'
complete -c quittance -n "__fish_quittance_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c quittance -n "__fish_quittance_using_subcommand completions" -l config -d 'The configuration' -r -F
complete -c quittance -n "__fish_quittance_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c quittance -n "__fish_quittance_using_subcommand man" -l dir -d 'Write it and the pages of all commands into this folder instead' -r -F
complete -c quittance -n "__fish_quittance_using_subcommand man" -l config -d 'The configuration' -r -F
complete -c quittance -n "__fish_quittance_using_subcommand man" -s h -l help -d 'Print help'
complete -c quittance -n "__fish_quittance_using_subcommand help; and not __fish_seen_subcommand_from serve check demo expect send list show tail export doctor completions man help" -f -a "serve" -d 'Run the daemon until SIGTERM'
complete -c quittance -n "__fish_quittance_using_subcommand help; and not __fish_seen_subcommand_from serve check demo expect send list show tail export doctor completions man help" -f -a "check" -d 'Tell everything that is wrong with the configuration, or what each source is worth'
complete -c quittance -n "__fish_quittance_using_subcommand help; and not __fish_seen_subcommand_from serve check demo expect send list show tail export doctor completions man help" -f -a "demo" -d 'Show the main job with throw-away keys: genuine, repeated, forged and shifted notifications of every provider'
complete -c quittance -n "__fish_quittance_using_subcommand help; and not __fish_seen_subcommand_from serve check demo expect send list show tail export doctor completions man help" -f -a "expect" -d 'Say which payment is expected, so that the event about it can say `fulfil`'
complete -c quittance -n "__fish_quittance_using_subcommand help; and not __fish_seen_subcommand_from serve check demo expect send list show tail export doctor completions man help" -f -a "send" -d 'Send a test notification, signed as the provider signs'
complete -c quittance -n "__fish_quittance_using_subcommand help; and not __fish_seen_subcommand_from serve check demo expect send list show tail export doctor completions man help" -f -a "list" -d 'List the notifications that were kept'
complete -c quittance -n "__fish_quittance_using_subcommand help; and not __fish_seen_subcommand_from serve check demo expect send list show tail export doctor completions man help" -f -a "show" -d 'Show one notification, or what happened to an order'
complete -c quittance -n "__fish_quittance_using_subcommand help; and not __fish_seen_subcommand_from serve check demo expect send list show tail export doctor completions man help" -f -a "tail" -d 'Print events as they come'
complete -c quittance -n "__fish_quittance_using_subcommand help; and not __fish_seen_subcommand_from serve check demo expect send list show tail export doctor completions man help" -f -a "export" -d 'Print notifications as JSON lines, for an archive or another program'
complete -c quittance -n "__fish_quittance_using_subcommand help; and not __fish_seen_subcommand_from serve check demo expect send list show tail export doctor completions man help" -f -a "doctor" -d 'Look at store, index, broker, clock, keys, file rights and disk, and say what to do'
complete -c quittance -n "__fish_quittance_using_subcommand help; and not __fish_seen_subcommand_from serve check demo expect send list show tail export doctor completions man help" -f -a "completions" -d 'Print a shell\'s completions'
complete -c quittance -n "__fish_quittance_using_subcommand help; and not __fish_seen_subcommand_from serve check demo expect send list show tail export doctor completions man help" -f -a "man" -d 'Print the manual page'
complete -c quittance -n "__fish_quittance_using_subcommand help; and not __fish_seen_subcommand_from serve check demo expect send list show tail export doctor completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
