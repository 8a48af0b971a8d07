# Made by the overlay `prompt`.

# Not interactive: nothing to do.
[ -z "${PS1-}" ] && return

shopt -s checkwinsize

# ~/.bashrc, Debian's own from /etc/skel too, sets PS1 after this file. So the prompt is set once more just before the
# first one is shown, and then left alone for the user to change.
GT_PS1='{{ vars.emoji }} \[\e[38;5;{{ vars.prompt[0] }}m\]\u@\h\[\e[0m\] \[\e[38;5;{{ vars.prompt[1] }}m\]\w\[\e[0m\] \[\e[38;5;{{ vars.prompt[2] }}m\]\$\[\e[0m\] '
PS1=$GT_PS1
PROMPT_COMMAND='PS1=$GT_PS1; unset PROMPT_COMMAND GT_PS1'
