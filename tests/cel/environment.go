package main

import (
	"fmt"
	"sort"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"k8s.io/apimachinery/pkg/util/version"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

var kubernetes = version.MajorMinor(1, 35)

// environmentOf is what a ValidatingAdmissionPolicy's expressions are compiled in, with Kustody's variables.
func environmentOf() (*cel.Env, error) {
	request, namespace := plugincel.BuildRequestType(), plugincel.BuildNamespaceType()
	agent := object("kustody.Agent", map[string]*apiservercel.DeclType{
		"class":  apiservercel.StringType,
		"user":   apiservercel.StringType,
		"groups": apiservercel.NewListType(apiservercel.StringType, -1),
		"extra":  apiservercel.NewMapType(apiservercel.StringType, apiservercel.NewListType(apiservercel.StringType, -1), -1),
	})
	texts := map[string]*apiservercel.DeclType{"dryRun": apiservercel.BoolType}
	for _, name := range []string{"operation", "verb", "group", "version", "resource", "subresource", "namespace", "name"} {
		texts[name] = apiservercel.StringType
	}
	action := object("kustody.Action", texts)
	extended, err := environment.MustBaseEnvSet(kubernetes).Extend(environment.VersionedOptions{
		IntroducedVersion: version.MajorMinor(1, 0),
		EnvOptions: []cel.EnvOption{
			cel.Variable("object", cel.DynType),
			cel.Variable("oldObject", cel.DynType),
			cel.Variable("params", cel.DynType),
			cel.Variable("run", cel.DynType),
			cel.Variable("request", request.CelType()),
			cel.Variable("namespaceObject", namespace.CelType()),
			cel.Variable("agent", agent.CelType()),
			cel.Variable("action", action.CelType()),
		},
		DeclTypes: []*apiservercel.DeclType{request, namespace, agent, action},
	}, environment.StrictCostOpt)
	if err != nil {
		return nil, err
	}
	return extended.Env(environment.NewExpressions)
}

func object(name string, fields map[string]*apiservercel.DeclType) *apiservercel.DeclType {
	declared := map[string]*apiservercel.DeclField{}
	for field, of := range fields {
		declared[field] = apiservercel.NewDeclField(field, of, true, nil, nil)
	}
	return apiservercel.NewObjectType(name, declared)
}

// declarations lists every overload but the authorizer's and those the checker treats by itself.
func declarations() ([]byte, error) {
	env, err := environmentOf()
	if err != nil {
		return nil, err
	}
	var lines []string
	for name, function := range env.Functions() {
		switch name {
		case "in", "_in_", "@not_strictly_false", "__not_strictly_false__", "_?._":
			continue
		}
		for _, overload := range function.OverloadDecls() {
			written := name
			if overload.IsMemberFunction() {
				written = "." + name
			}
			line := fmt.Sprintf("%s %s %s", written, listed(overload.ArgTypes()), listed([]*types.Type{overload.ResultType()}))
			if !strings.Contains(line, "kubernetes.authorization") && !strings.HasPrefix(written, "cel.") {
				lines = append(lines, line)
			}
		}
	}
	sort.Strings(lines)
	return []byte(strings.Join(lines, "\n") + "\n"), nil
}

func listed(of []*types.Type) string {
	var names []string
	for _, one := range of {
		names = append(names, strings.ReplaceAll(one.String(), " ", ""))
	}
	return strings.Join(names, ";")
}
