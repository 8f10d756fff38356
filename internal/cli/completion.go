package cli

import (
	"io"

	"github.com/spf13/cobra"
)

var shells = []string{"bash", "zsh", "fish"}

func (a *app) completion(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print what makes a shell complete commands, flags and ids",
		Long: `Prints a script for the shell. To have it in every shell:

  conductor completion bash > /etc/bash_completion.d/conductor
  conductor completion zsh  > "${fpath[1]}/_conductor"
  conductor completion fish > ~/.config/fish/completions/conductor.fish`,
		Example:   "conductor completion bash",
		ValidArgs: shells,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError("for example: conductor completion bash", "completion needs the name of one shell")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			return complete(root, args[0], a.answerTo)
		},
	}
}

func complete(root *cobra.Command, shell string, to io.Writer) error {
	switch shell {
	case "bash":
		return root.GenBashCompletionV2(to, true)
	case "zsh":
		return root.GenZshCompletion(to)
	case "fish":
		return root.GenFishCompletion(to, true)
	}
	return usageError("one of bash, zsh, fish", "no completion for the shell %q", shell)
}
