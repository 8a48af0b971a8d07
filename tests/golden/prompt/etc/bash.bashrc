==== allyrion
# Made by the overlay `prompt`.

# Not interactive: nothing to do.
[ -z "${PS1-}" ] && return

shopt -s checkwinsize

# ~/.bashrc, Debian's own from /etc/skel too, sets PS1 after this file. So the prompt is set once more just before the
# first one is shown, and then left alone for the user to change.
GT_PS1='✋ \[\e[38;5;124m\]\u@\h\[\e[0m\] \[\e[38;5;220m\]\w\[\e[0m\] \[\e[38;5;52m\]\$\[\e[0m\] '
PS1=$GT_PS1
PROMPT_COMMAND='PS1=$GT_PS1; unset PROMPT_COMMAND GT_PS1'

==== bettley
# Made by the overlay `prompt`.

# Not interactive: nothing to do.
[ -z "${PS1-}" ] && return

shopt -s checkwinsize

# ~/.bashrc, Debian's own from /etc/skel too, sets PS1 after this file. So the prompt is set once more just before the
# first one is shown, and then left alone for the user to change.
GT_PS1='🐞 \[\e[38;5;220m\]\u@\h\[\e[0m\] \[\e[38;5;18m\]\w\[\e[0m\] \[\e[38;5;94m\]\$\[\e[0m\] '
PS1=$GT_PS1
PROMPT_COMMAND='PS1=$GT_PS1; unset PROMPT_COMMAND GT_PS1'

==== cargyll
# Made by the overlay `prompt`.

# Not interactive: nothing to do.
[ -z "${PS1-}" ] && return

shopt -s checkwinsize

# ~/.bashrc, Debian's own from /etc/skel too, sets PS1 after this file. So the prompt is set once more just before the
# first one is shown, and then left alone for the user to change.
GT_PS1='🦢 \[\e[38;5;124m\]\u@\h\[\e[0m\] \[\e[38;5;220m\]\w\[\e[0m\] \[\e[38;5;58m\]\$\[\e[0m\] '
PS1=$GT_PS1
PROMPT_COMMAND='PS1=$GT_PS1; unset PROMPT_COMMAND GT_PS1'

==== dalt
# Made by the overlay `prompt`.

# Not interactive: nothing to do.
[ -z "${PS1-}" ] && return

shopt -s checkwinsize

# ~/.bashrc, Debian's own from /etc/skel too, sets PS1 after this file. So the prompt is set once more just before the
# first one is shown, and then left alone for the user to change.
GT_PS1='🍋 \[\e[38;5;127m\]\u@\h\[\e[0m\] \[\e[38;5;184m\]\w\[\e[0m\] \[\e[38;5;22m\]\$\[\e[0m\] '
PS1=$GT_PS1
PROMPT_COMMAND='PS1=$GT_PS1; unset PROMPT_COMMAND GT_PS1'

==== erenford
# Made by the overlay `prompt`.

# Not interactive: nothing to do.
[ -z "${PS1-}" ] && return

shopt -s checkwinsize

# ~/.bashrc, Debian's own from /etc/skel too, sets PS1 after this file. So the prompt is set once more just before the
# first one is shown, and then left alone for the user to change.
GT_PS1='🦩 \[\e[38;5;210m\]\u@\h\[\e[0m\] \[\e[38;5;220m\]\w\[\e[0m\] \[\e[38;5;95m\]\$\[\e[0m\] '
PS1=$GT_PS1
PROMPT_COMMAND='PS1=$GT_PS1; unset PROMPT_COMMAND GT_PS1'

==== fenn
# Made by the overlay `prompt`.

# Not interactive: nothing to do.
[ -z "${PS1-}" ] && return

shopt -s checkwinsize

# ~/.bashrc, Debian's own from /etc/skel too, sets PS1 after this file. So the prompt is set once more just before the
# first one is shown, and then left alone for the user to change.
GT_PS1='🌺 \[\e[38;5;140m\]\u@\h\[\e[0m\] \[\e[38;5;160m\]\w\[\e[0m\] \[\e[38;5;159m\]\$\[\e[0m\] '
PS1=$GT_PS1
PROMPT_COMMAND='PS1=$GT_PS1; unset PROMPT_COMMAND GT_PS1'

==== gardener
# Made by the overlay `prompt`.

# Not interactive: nothing to do.
[ -z "${PS1-}" ] && return

shopt -s checkwinsize

# ~/.bashrc, Debian's own from /etc/skel too, sets PS1 after this file. So the prompt is set once more just before the
# first one is shown, and then left alone for the user to change.
GT_PS1='🧤 \[\e[38;5;28m\]\u@\h\[\e[0m\] \[\e[38;5;102m\]\w\[\e[0m\] \[\e[38;5;108m\]\$\[\e[0m\] '
PS1=$GT_PS1
PROMPT_COMMAND='PS1=$GT_PS1; unset PROMPT_COMMAND GT_PS1'

==== harlton
# Made by the overlay `prompt`.

# Not interactive: nothing to do.
[ -z "${PS1-}" ] && return

shopt -s checkwinsize

# ~/.bashrc, Debian's own from /etc/skel too, sets PS1 after this file. So the prompt is set once more just before the
# first one is shown, and then left alone for the user to change.
GT_PS1='🌳 \[\e[38;5;28m\]\u@\h\[\e[0m\] \[\e[38;5;188m\]\w\[\e[0m\] \[\e[38;5;102m\]\$\[\e[0m\] '
PS1=$GT_PS1
PROMPT_COMMAND='PS1=$GT_PS1; unset PROMPT_COMMAND GT_PS1'

==== inchfield
# Made by the overlay `prompt`.

# Not interactive: nothing to do.
[ -z "${PS1-}" ] && return

shopt -s checkwinsize

# ~/.bashrc, Debian's own from /etc/skel too, sets PS1 after this file. So the prompt is set once more just before the
# first one is shown, and then left alone for the user to change.
GT_PS1='🏁 \[\e[38;5;102m\]\u@\h\[\e[0m\] \[\e[38;5;59m\]\w\[\e[0m\] \[\e[38;5;102m\]\$\[\e[0m\] '
PS1=$GT_PS1
PROMPT_COMMAND='PS1=$GT_PS1; unset PROMPT_COMMAND GT_PS1'

==== jast
# Made by the overlay `prompt`.

# Not interactive: nothing to do.
[ -z "${PS1-}" ] && return

shopt -s checkwinsize

# ~/.bashrc, Debian's own from /etc/skel too, sets PS1 after this file. So the prompt is set once more just before the
# first one is shown, and then left alone for the user to change.
GT_PS1='🦁 \[\e[38;5;11m\]\u@\h\[\e[0m\] \[\e[38;5;58m\]\w\[\e[0m\] \[\e[38;5;145m\]\$\[\e[0m\] '
PS1=$GT_PS1
PROMPT_COMMAND='PS1=$GT_PS1; unset PROMPT_COMMAND GT_PS1'
